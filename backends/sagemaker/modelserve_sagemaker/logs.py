"""What the containers of an endpoint wrote, out of CloudWatch Logs."""

from __future__ import annotations

from modelserve.errors import DeploymentNotFoundError
from modelserve_sagemaker.clients import Account

_MOST_LINES = 10_000
_SHOWN_ON_FAILURE = 30


def group_of(endpoint: str) -> str:
    """The group that SageMaker writes to."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def lines(account: Account, endpoint: str) -> list[str]:
    """Lines, oldest first; none where no container has started yet."""
    found: list[tuple[int, str]] = []
    token: dict[str, str] = {}
    while len(found) < _MOST_LINES:
        try:
            answer = account.call("logs", "filter_log_events", logGroupName=group_of(endpoint), **token)
        except DeploymentNotFoundError:
            return []
        found += [(event["timestamp"], event["message"]) for event in answer["events"]]
        if not answer.get("nextToken"):
            break
        token = {"nextToken": answer["nextToken"]}
    ordered = sorted(found, key=lambda event: event[0])
    return [line for _, message in ordered for line in message.splitlines() if line]


def tail(account: Account, endpoint: str) -> str:
    """The last lines, for a message about a failure."""
    last = lines(account, endpoint)[-_SHOWN_ON_FAILURE:]
    if not last:
        return (
            f"No container wrote to {group_of(endpoint)!r}: it is the image, the capacity or the role that kept "
            "them from starting."
        )
    return "The containers wrote: " + " | ".join(last)


def remove(account: Account, endpoint: str) -> None:
    """The group, which otherwise outlives its endpoint. Quiet when there is none."""
    try:
        account.call("logs", "delete_log_group", logGroupName=group_of(endpoint))
    except DeploymentNotFoundError:
        return
