"""What processes use of the machine's memory, and how much of it there is to use."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_KERNEL_COUNTERS = Path("/proc/vmstat")
_UNKNOWN_BYTES = 4 << 30


def memory_limit_bytes() -> int:
    """What this process and its workers may use: the machine's memory, or less where the control group says so."""
    limits = [_physical_bytes()]
    for path in _CGROUP_LIMITS:
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(limits)


def out_of_memory_kills() -> int:
    """How many processes the system has ended so far because there was no memory; 0 where it does not tell."""
    try:
        lines = _KERNEL_COUNTERS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def memory_of(pid: int | None) -> tuple[int | None, int | None]:
    """Private and shared bytes of a process, None where the platform does not tell."""
    if pid is None:
        return None, None
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None, None
    amounts = {key: int(rest.split()[0]) * 1024 for key, _, rest in (line.partition(":") for line in lines[1:])}
    private = amounts.get("Private_Clean", 0) + amounts.get("Private_Dirty", 0)
    return private, amounts.get("Shared_Clean", 0) + amounts.get("Shared_Dirty", 0)


def _physical_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return _UNKNOWN_BYTES


def give_back_freed_memory() -> None:
    """Return to the system what loading has freed: the C library keeps it otherwise."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in every C library
        if trim is not None:
            trim(0)
