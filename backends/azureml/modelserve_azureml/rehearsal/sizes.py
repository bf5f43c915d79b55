"""The machines of the rehearsed region, and how many of them may be had."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

#: Size -> processors, memory in GB, GPUs, family of its quota; from Microsoft's list of sizes.
_KNOWN = {
    "Standard_DS2_v2": (2, 7.0, 0, "standardDSv2Family"),
    "Standard_DS3_v2": (4, 14.0, 0, "standardDSv2Family"),
    "Standard_DS4_v2": (8, 28.0, 0, "standardDSv2Family"),
    "Standard_F2s_v2": (2, 4.0, 0, "standardFSv2Family"),
    "Standard_F4s_v2": (4, 8.0, 0, "standardFSv2Family"),
    "Standard_F8s_v2": (8, 16.0, 0, "standardFSv2Family"),
    "Standard_E4s_v3": (4, 32.0, 0, "standardESv3Family"),
    "Standard_NC4as_T4_v3": (4, 28.0, 1, "Standard NCASv3_T4 Family"),
    "Standard_NC24ads_A100_v4": (24, 220.0, 1, "Standard NCADSA100v4 Family"),
}
_NAMED = re.compile(r"Standard_([A-Z]+)(\d+)[a-z0-9_A-Z]*")
_GB_PER_PROCESSOR = 4.0
DEFAULT_LIMIT = 100


def sizes(further: str) -> list[dict[str, Any]]:
    """The region's sizes; `further` among them where its name reads as one.

    A size that this list does not know is taken to be as its name says, with 4 GB for each processor.
    """
    known = dict(_KNOWN)
    match = _NAMED.fullmatch(further)
    if further not in known and match is not None:
        processors = int(match[2])
        known[further] = (processors, processors * _GB_PER_PROCESSOR, 0, f"standard{match[1]}Family")
    return [_size(name, *numbers) for name, numbers in known.items()]


def _size(name: str, processors: int, memory_gb: float, gpus: int, family: str) -> dict[str, Any]:
    return {
        "name": name,
        "family": family,
        "vCPUs": processors,
        "gpus": gpus,
        "memoryGB": memory_gb,
        "osVhdSizeMB": 1047552,
        "maxResourceVolumeMB": 32768,
        "lowPriorityCapable": True,
        "premiumIO": True,
        "supportedComputeTypes": ["AmlCompute", "ComputeInstance"],
    }


def usages(found: Iterable[dict[str, Any]], used: dict[str, int], limit: int) -> list[dict[str, Any]]:
    """How much of each family is in use."""
    families = sorted({size["family"] for size in found})
    return [
        {
            "id": family,
            "type": "Microsoft.MachineLearningServices/vmFamily/dedicatedCores/usages",
            "unit": "Count",
            "currentValue": used.get(family, 0),
            "limit": limit,
            "name": {"value": family, "localizedValue": family},
        }
        for family in families
    ]
