"""How much memory a machine has, by its name.

https://cloud.google.com/compute/docs/machine-resource
"""

from __future__ import annotations

import re

_GIB = 1 << 30
_NAME = re.compile(r"(?P<family>[a-z]\d[a-z]?)-(?P<kind>standard|highmem|highcpu)-(?P<processors>\d+)")
#: GiB for each processor.
_PER_PROCESSOR = {
    ("n1", "standard"): 3.75, ("n1", "highmem"): 6.5, ("n1", "highcpu"): 0.9,
    ("e2", "standard"): 4, ("e2", "highmem"): 8, ("e2", "highcpu"): 1,
    ("n2", "standard"): 4, ("n2", "highmem"): 8, ("n2", "highcpu"): 1,
    ("c2", "standard"): 4, ("c3", "standard"): 4, ("c3", "highmem"): 8, ("c3", "highcpu"): 2,
    ("g2", "standard"): 4,
}  # fmt: skip


def memory_bytes(machine_type: str) -> int | None:
    """Its memory; None where that is not known."""
    match = _NAME.fullmatch(machine_type)
    if match is None:
        return None
    per_processor = _PER_PROCESSOR.get((match["family"], match["kind"]))
    return None if per_processor is None else int(per_processor * int(match["processors"]) * _GIB)
