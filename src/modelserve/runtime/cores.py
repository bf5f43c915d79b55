"""How many processors this process may use: by its affinity and its control group, not by what the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

_V2 = Path("/sys/fs/cgroup/cpu.max")
_V1_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
_V1_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def usable_cores() -> int:
    """Whole processors, at least 1."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(affine, _quota() + 0.01)))


def threads_wanted() -> int | None:
    """Threads within an operation as the user's environment sets them for numeric libraries (`OMP_NUM_THREADS`)."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else None


def places(threads: int) -> list[list[int]]:
    """Groups of `threads` processors each, for workers that are pinned; one group at least."""
    if not hasattr(os, "sched_getaffinity"):
        return [[]]
    cores = sorted(os.sched_getaffinity(0))
    found = [cores[start : start + threads] for start in range(0, len(cores) - threads + 1, threads)]
    return found or [cores]


def _quota() -> float:
    """Processors that the control group allows; infinite where it does not say."""
    try:
        if _V2.exists():
            quota, period = _V2.read_text().split()[:2]
            return math.inf if quota == "max" else int(quota) / int(period)
        if _V1_QUOTA.exists():
            quota_us = int(_V1_QUOTA.read_text())
            return math.inf if quota_us <= 0 else quota_us / int(_V1_PERIOD.read_text())
    except (OSError, ValueError):
        return math.inf
    return math.inf
