"""The lines that an endpoint's containers wrote, from Cloud Logging.

https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelserve_vertex import names
from modelserve_vertex.google import Google

_CONTAINER_LOG = "aiplatform.googleapis.com%2Fprediction_container"
_MOST_LINES = 1000


def lines(google: Google, endpoint: str, *, most: int = _MOST_LINES) -> list[str]:
    """The last lines, oldest first."""
    entries = google.post(
        f"{google.address('logging')}/v2/entries:list",
        {
            "resourceNames": [f"projects/{google.project}"],
            "filter": (
                f'logName="projects/{google.project}/logs/{_CONTAINER_LOG}" '
                'AND resource.type="aiplatform.googleapis.com/Endpoint" '
                f'AND resource.labels.endpoint_id="{names.short(endpoint)}"'
            ),
            "orderBy": "timestamp desc",
            "pageSize": most,
        },
        f"Reading the log of {names.short(endpoint)!r}",
    ).get("entries", [])
    return [line for entry in reversed(entries) for line in _written(entry)]


def _written(entry: dict[str, Any]) -> Iterator[str]:
    """The lines of one entry, which has text or a structure with a message."""
    text = entry.get("textPayload") or entry.get("jsonPayload", {}).get("message", "")
    yield from str(text).splitlines()
