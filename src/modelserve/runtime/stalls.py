"""Whether a worker gets on with its work: a run that takes too long, a process that does nothing or was stopped."""

from __future__ import annotations

from modelserve.runtime.member import Member, Stage

_STALL_S = 3.0


def why_to_end(member: Member, now: float, run_timeout_s: float) -> str | None:
    """Why this worker must be ended and replaced; None while it gets on.

    Args:
        now: Seconds of the monotonic clock.
        run_timeout_s: Longest time that one run of the model may take.
    """
    lane = member.lane
    if not lane.outstanding and member.stage is not Stage.STARTING:
        member.stalled_at = None
        return None
    running, since_ns = lane.sender.running()
    if running and now - since_ns / 1e9 > run_timeout_s:
        return f"was ended after running for {run_timeout_s:g} s"
    if not (lane.outstanding and lane.sender.untouched() and not running) and not _is_stopped(member.handle.pid):
        member.stalled_at = None
        return None
    member.stalled_at = member.stalled_at or now
    return f"was ended because it did nothing for {_STALL_S:g} s" if now - member.stalled_at > _STALL_S else None


def _is_stopped(pid: int | None) -> bool:
    """Whether somebody stopped the process (SIGSTOP); only known where /proc is."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  # read often, kept cheap
            return file.read().rpartition(b")")[2].split()[0] == b"T"
    except (OSError, IndexError):
        return False
