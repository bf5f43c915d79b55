"""management.azure.com: the resource manager, as far as this backend and Microsoft's own client ask it.

    path ──► route ──► resource read, or a body checked as Azure checks it ──► a change, or a long operation

A path that no route knows is answered 404, so that a call that nobody rehearsed is seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelserve.standin.faults import Faults
from modelserve.standin.loopback import Answered
from modelserve_azureml.names import PROVIDER, Workspace
from modelserve_azureml.rehearsal.batches import Batches
from modelserve_azureml.rehearsal.blobs import Blobs
from modelserve_azureml.rehearsal.calls import Call, Refusal, said
from modelserve_azureml.rehearsal.endpoints import Endpoints
from modelserve_azureml.rehearsal.fleets import Fleets
from modelserve_azureml.rehearsal.registered import Registered
from modelserve_azureml.rehearsal.resources import Resources
from modelserve_azureml.rehearsal.routing import NAME, Route, refuse, route
from modelserve_azureml.rehearsal.sign_in import SignIn


class Manager:
    """Answers calls of the resource manager."""

    def __init__(
        self,
        workspace: Workspace,
        instance_type: str,
        blobs: Blobs,
        fleets: Fleets,
        faults: Faults,
        sign_in: SignIn,
    ) -> None:
        self.workspace = workspace
        self.resources = Resources()
        self.endpoints = Endpoints(workspace, instance_type, self.resources, blobs, fleets)
        self.account = self.endpoints.account
        self.operations = self.endpoints.operations
        registered = Registered(workspace, self.resources, blobs)
        self.batches = Batches(workspace, self.account, self.resources, self.operations, blobs, faults, sign_in)
        rooms = (self.account, registered, self.endpoints, self.batches)
        self._routes = [*(known for room in rooms for known in room.routes()), *self._own_routes()]

    def find(self, call: Call) -> tuple[Route, tuple[str, ...]]:
        """Where a call leads, and the names in its path."""
        for known in self._routes:
            match = known.pattern.fullmatch(call.path)
            if match is not None and known.method == call.method:
                return known, match.groups()
        raise Refusal(404, "ResourceNotFound", f"There is no {call.method} {call.path} at this stand-in.")

    def answer(self, found: Route, call: Call, names: tuple[str, ...]) -> Answered:
        if not call.query.get("api-version"):
            raise Refusal(
                400, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is needed."
            )
        return found.handler(call, names)

    def autoscale_settings(self) -> list[dict[str, Any]]:
        return self.resources.below(f"{self.workspace.group}/providers/Microsoft.Insights/autoscalesettings")

    def leftovers(self) -> list[str]:
        return self.resources.paths()

    def _own_routes(self) -> list[Route]:
        place = f"/subscriptions/{NAME}/providers/{re.escape(PROVIDER)}/locations/{NAME}"
        setting = f"{re.escape(self.workspace.group)}/providers/Microsoft.Insights/autoscalesettings/{NAME}"
        return [
            route("Operations.Get", "GET", f"{place}/mfeOperationsStatus/{NAME}", self._operation),
            route("Operations.GetResult", "GET", f"{place}/mfeOperationResults/{NAME}", self._result),
            route("Autoscale.Get", "GET", setting, self._get),
            route("Autoscale.Put", "PUT", setting, self._put_autoscale),
            route("Autoscale.Delete", "DELETE", setting, self._delete_autoscale),
        ]

    def _operation(self, call: Call, names: tuple[str, ...]) -> Answered:
        return self.operations.look(names[2])

    def _result(self, call: Call, names: tuple[str, ...]) -> Answered:
        return self.operations.result(names[2])

    def _get(self, call: Call, names: tuple[str, ...]) -> Answered:
        return said(self.resources.need(call.path))

    def _put_autoscale(self, call: Call, names: tuple[str, ...]) -> Answered:
        properties = call.json.get("properties") or {}
        self.resources.need(properties.get("targetResourceUri", ""))
        for profile in properties.get("profiles") or []:
            refuse(_scale_problems(profile))
        return said(self.resources.put(call.path, call.json), 200)

    def _delete_autoscale(self, call: Call, names: tuple[str, ...]) -> Answered:
        is_there = self.resources.get(call.path) is not None
        self.resources.remove(call.path)
        return Answered(200 if is_there else 204)


def _scale_problems(profile: Mapping[str, Any]) -> list[str]:
    capacity = profile.get("capacity") or {}
    if any(not isinstance(capacity.get(name), str) for name in ("minimum", "maximum", "default")):
        return ["capacity needs minimum, maximum and default, as text"]
    low, default, high = (int(capacity[name]) for name in ("minimum", "default", "maximum"))
    found = [] if 1 <= low <= default <= high <= 50 else [f"capacity {low} <= {default} <= {high} makes no sense"]
    directions = {rule["scaleAction"]["direction"] for rule in profile.get("rules") or []}
    return found + ([] if directions <= {"Increase", "Decrease"} else [f"direction is one of {sorted(directions)}"])
