"""What this machine computes fast, and how a report names it."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

_INTERESTING = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16",
                "amx_fp16", "asimd", "asimddp", "i8mm", "fphp", "bf16")  # fmt: skip
_CPU_INFO = Path("/proc/cpuinfo")


@cache
def instructions() -> frozenset[str]:
    """The processor's instruction sets that matter here; none where the system does not say."""
    if not _CPU_INFO.is_file():
        return frozenset()
    for line in _CPU_INFO.read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split()) & frozenset(_INTERESTING)
    return frozenset()


def has_integer_dot_products() -> bool:
    """Whether sums of 8-bit products are made in 32 bits by one instruction."""
    return bool(instructions() & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


def has_half_precision() -> bool:
    """Whether float16 is computed, not only stored."""
    return bool(instructions() & {"avx512_fp16", "amx_fp16", "fphp"})


def has_bfloat16() -> bool:
    """Whether bfloat16 is computed, not only stored."""
    return bool(instructions() & {"avx512_bf16", "amx_bf16", "bf16"})


def describe() -> dict[str, object]:
    """The machine and the runtime, for a report."""
    import onnxruntime

    return {
        "processor": _processor(),
        "instructions": sorted(instructions()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }


def _processor() -> str:
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
