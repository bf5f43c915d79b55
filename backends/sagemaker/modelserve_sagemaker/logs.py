"""What containers wrote, of an endpoint or of a batch job, out of CloudWatch Logs."""

from __future__ import annotations

from modelserve.errors import DeploymentNotFoundError
from modelserve_sagemaker.clients import Account

#: The streams of all jobs of an account are in one group, each named <job>/<machine>.
JOBS = "/aws/sagemaker/TransformJobs"
_MOST_LINES = 10_000
_SHOWN_ON_FAILURE = 30


def group_of(endpoint: str) -> str:
    """The group that SageMaker writes to."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def lines(account: Account, endpoint: str) -> list[str]:
    """Lines, oldest first; none where no container has started yet."""
    return _written(account, logGroupName=group_of(endpoint))


def tail(account: Account, endpoint: str) -> str:
    """The last lines, for a message about a failure."""
    return _tail(lines(account, endpoint), group_of(endpoint))


def tail_of_job(account: Account, job: str) -> str:
    """As `tail`, of a batch job."""
    return _tail(_written(account, logGroupName=JOBS, logStreamNamePrefix=f"{job}/"), JOBS)


def remove(account: Account, endpoint: str) -> None:
    """The group, which otherwise outlives its endpoint. Quiet when there is none."""
    try:
        account.call("logs", "delete_log_group", logGroupName=group_of(endpoint))
    except DeploymentNotFoundError:
        return


def remove_job(account: Account, job: str) -> None:
    """The streams of a job. Quiet when there are none."""
    try:
        answer = account.call("logs", "describe_log_streams", logGroupName=JOBS, logStreamNamePrefix=f"{job}/")
        for stream in answer["logStreams"]:
            account.call("logs", "delete_log_stream", logGroupName=JOBS, logStreamName=stream["logStreamName"])
    except DeploymentNotFoundError:
        return


def _written(account: Account, **where: str) -> list[str]:
    found: list[tuple[int, str]] = []
    token: dict[str, str] = {}
    while len(found) < _MOST_LINES:
        try:
            answer = account.call("logs", "filter_log_events", **where, **token)
        except DeploymentNotFoundError:
            return []
        found += [(event["timestamp"], event["message"]) for event in answer["events"]]
        if not answer.get("nextToken"):
            break
        token = {"nextToken": answer["nextToken"]}
    ordered = sorted(found, key=lambda event: event[0])
    return [line for _, message in ordered for line in message.splitlines() if line]


def _tail(written: list[str], group: str) -> str:
    last = written[-_SHOWN_ON_FAILURE:]
    if not last:
        return (
            f"No container wrote to {group!r}: it is the image, the capacity or the role that kept them from starting."
        )
    return "The containers wrote: " + " | ".join(last)
