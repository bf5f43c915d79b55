"""How an endpoint's traffic is divided: percent by deployed model, 100 in all."""

from __future__ import annotations

from collections.abc import Mapping

#: What stands for the model that a deploy is about to add.
INCOMING = "0"


def first(share: int, standing: Mapping[str, int]) -> dict[str, int]:
    """The split when a model comes: it gets `share` percent, or all where nothing stands."""
    if not standing:
        return {INCOMING: 100}
    return {INCOMING: share, **_shared(100 - share, standing)}


def all_to(deployed_id: str) -> dict[str, int]:
    """Everything to one model."""
    return {deployed_id: 100}


def without(deployed_id: str, standing: Mapping[str, int]) -> dict[str, int]:
    """The split when a model goes; empty where it had no traffic, or where nothing remains."""
    if not standing.get(deployed_id):
        return {}
    rest = {name: share for name, share in standing.items() if name != deployed_id}
    return _shared(100, rest) if any(rest.values()) else {}


def _shared(total: int, standing: Mapping[str, int]) -> dict[str, int]:
    """`total` percent, in the proportion of `standing`; whole numbers that sum exactly."""
    whole = sum(standing.values())
    parts = {name: total * share // whole for name, share in standing.items()}
    parts[max(standing, key=lambda name: standing[name])] += total - sum(parts.values())
    return parts
