"""Other services of Google that the backend asks over plain HTTP: Cloud Logging and Monitoring, Resource Manager."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from google.api_core import exceptions as google_errors

from modelserve.standin.loopback import Answered, Exchange
from modelserve_vertex.rehearsal.fleets import Fleets
from modelserve_vertex.rehearsal.monitoring import Monitoring

_LOGS = "/v2/entries:list"
_SERIES = re.compile(r"/v3/projects/(?P<project>[^/]+)/timeSeries")
_PERMISSIONS = re.compile(r"/v1/projects/(?P<project>[^/]+):testIamPermissions")
_ENDPOINT = re.compile(r'resource\.labels\.endpoint_id="(?P<id>[^"]+)"')


class Neighbours:
    """What stands beside Vertex AI.

    Attributes:
        denied: Permissions that the caller has not.
    """

    def __init__(self, fleets: Fleets, monitoring: Monitoring) -> None:
        self._fleets = fleets
        self._monitoring = monitoring
        self.denied: set[str] = set()

    def operation(self, exchange: Exchange) -> str | None:
        """The name under which faults know a request; None where no neighbour is meant."""
        found = self._answering(exchange)
        return None if found is None else found[0]

    def answer(self, exchange: Exchange) -> Answered:
        found = self._answering(exchange)
        assert found is not None
        content = found[1](exchange)
        return Answered(200, json.dumps(content).encode(), {"content-type": "application/json"})

    def _answering(self, exchange: Exchange) -> tuple[str, Callable[[Exchange], Any]] | None:
        if exchange.path == _LOGS:
            return "logging.entries.list", self._entries
        if _SERIES.fullmatch(exchange.path):
            return "monitoring.timeSeries.list", self._series
        if _PERMISSIONS.fullmatch(exchange.path):
            return "projects.testIamPermissions", self._permissions
        return None

    def _entries(self, exchange: Exchange) -> dict[str, Any]:
        asked = _content(exchange)
        match = _ENDPOINT.search(asked.get("filter", ""))
        wanted = "" if match is None else match["id"]
        entries = [
            {"textPayload": line, "severity": "ERROR", "labels": {"replica_id": replica}}
            for name in self._fleets.owners
            if name.rpartition("/")[2] == wanted
            for fleet in self._fleets.of(name)
            for replica, lines in fleet.logs().items()
            for line in lines
        ]
        newest_first = entries[::-1] if asked.get("orderBy") == "timestamp desc" else entries
        return {"entries": newest_first[: asked.get("pageSize", len(entries))]}

    def _series(self, exchange: Exchange) -> dict[str, Any]:
        if "monitoring.timeSeries.list" in self.denied:
            raise google_errors.PermissionDenied("Permission monitoring.timeSeries.list denied.")
        return self._monitoring.time_series(exchange.query)

    def _permissions(self, exchange: Exchange) -> dict[str, Any]:
        asked = _content(exchange)
        return {"permissions": [one for one in asked.get("permissions", []) if one not in self.denied]}


def _content(exchange: Exchange) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(exchange.body or b"{}")
    return found
