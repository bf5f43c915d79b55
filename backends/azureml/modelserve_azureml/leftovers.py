"""What deploys left behind whose process was killed: models and environments of an endpoint that is not there.

    containers of models and environments ──named as an endpoint of ours──► versions ──by their tags──► whose

A name tells what is worth looking at: a workspace may hold thousands of models, and each look is a call.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from modelserve.backend import EndpointStatus, State
from modelserve.errors import AccessDeniedError
from modelserve_azureml.names import SUFFIX, marks
from modelserve_azureml.site import Site

_KINDS = ("models", "environments")


def left_behind(site: Site, endpoints: Collection[str]) -> list[EndpointStatus]:
    """A status for each deployment of which nothing but such things is there.

    Args:
        endpoints: Names of endpoints that exist.
    """
    try:
        found = [status for kind in _KINDS for status in _of_kind(site, kind, endpoints)]
    except AccessDeniedError:
        # Who may ask endpoints only may list those, and left nothing here.
        return []
    return list({status.name: status for status in reversed(found)}.values())


def _of_kind(site: Site, kind: str, endpoints: Collection[str]) -> Iterator[EndpointStatus]:
    for container in site.arm.every(f"{site.workspace.path}/{kind}"):
        if container["name"] not in endpoints and _may_be_ours(site, container["name"]):
            yield from _statuses(site, f"{site.workspace.path}/{kind}/{container['name']}")


def _may_be_ours(site: Site, name: str) -> bool:
    return name == site.options.endpoint_name or re.fullmatch(rf".+-{SUFFIX}", name) is not None


def _statuses(site: Site, container: str) -> list[EndpointStatus]:
    statuses = []
    for version in site.arm.every(f"{container}/versions"):
        found = marks(version)
        if found is not None and not version["properties"].get("isArchived"):
            why = f"A deploy left {container.rpartition('/workspaces/')[2].partition('/')[2]} and no endpoint."
            statuses.append(EndpointStatus(found.deployment, "azureml", State.FAILED, found.digest, None, (), why))
    return statuses
