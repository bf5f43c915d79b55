"""The rehearsed Azure, put together.

    adapter, azure-identity, azure-ai-ml, azure-storage-blob
       │ proxy= and ca= of the options: nothing is put into the environment
       ▼
    Proxy ──TLS──► one server on 127.0.0.1 ──by host name──► sign-in, resource manager, blobs, scoring door

A host that is not Azure's is refused by the proxy, so that nothing of a rehearsal leaves this machine.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from modelserve.backend import Backend, Rehearsal
from modelserve.errors import DeploymentNotFoundError
from modelserve.standin.faults import Failing, Faults, Interrupted, LostAnswer, NotYetSeen, Throttled, interrupt
from modelserve.standin.loopback import Answered, Broken, Exchange, LoopbackServer, answering
from modelserve_azureml.names import Workspace, endpoint_name
from modelserve_azureml.options import AzureMLOptions
from modelserve_azureml.rehearsal import certificates
from modelserve_azureml.rehearsal.account import REGION, REGISTRY
from modelserve_azureml.rehearsal.autoscaling import Autoscaling
from modelserve_azureml.rehearsal.blobs import HOST as BLOB_HOST
from modelserve_azureml.rehearsal.blobs import Blobs
from modelserve_azureml.rehearsal.calls import Call, Refusal
from modelserve_azureml.rehearsal.container_registry import ContainerRegistry
from modelserve_azureml.rehearsal.door import Door
from modelserve_azureml.rehearsal.fleets import Fleets
from modelserve_azureml.rehearsal.manager import Manager
from modelserve_azureml.rehearsal.proxy import Proxy
from modelserve_azureml.rehearsal.routing import Route
from modelserve_azureml.rehearsal.sign_in import HOST as SIGN_IN_HOST
from modelserve_azureml.rehearsal.sign_in import TENANT, SignIn

MANAGER_HOST = "management.azure.com"
DOOR_SUFFIX = f".{REGION}.inference.ml.azure.com"
REGISTRY_HOST = f"{REGISTRY}.azurecr.io"
NAMES = (MANAGER_HOST, SIGN_IN_HOST, BLOB_HOST, REGISTRY_HOST, f"*{DOOR_SUFFIX}")
#: The runtime's image of a rehearsal, which counts as pushed: with `image = ""` one is built and pushed as at Azure.
IMAGE = f"{REGISTRY_HOST}/modelserve:rehearsal"
_AUDIENCES = {"https://management.azure.com", "https://management.core.windows.net"}


class AzureRehearsal(Rehearsal):
    """A workspace on this machine, with the names and options of the real one.

    Attributes:
        faults: What is to go wrong, by operation (`Endpoints.Put`, `Assets.Upload`, `Blob.PUT`, `Score`, ...).
        options: By which a backend of this or another process gets here.
    """

    #: Options by which a backend of another process gets here.
    reached_by: ClassVar[Sequence[str]] = (
        "subscription",
        "resource_group",
        "workspace",
        "tenant",
        "client_id",
        "client_secret",
        "proxy",
        "ca",
        "image",
    )
    only_live: Sequence[str] = (
        "Whether the endpoint's name is free in the region, and whether the instance type is in stock there.",
        "Pulling the image by the endpoint's own identity; a rehearsal runs the runtime that is installed here.",
        "Roles as they are really assigned, and how long an assignment takes to be seen.",
        "When instances follow an autoscale setting (minutes are reported); here a rehearsal's own clock does.",
        "Private endpoints, managed networks, and which headers pass besides Content-Type.",
        "Times: a deployment takes minutes there and a second here; bandwidth is not slowed down here.",
        "Batch: that Azure builds the environment, and its driver is content with it; where exactly an output lies.",
        "Whether the uploaded files go with a model's version when that is deleted.",
    )

    def __init__(self, options: AzureMLOptions) -> None:
        self.faults = Faults()
        self.sign_in = SignIn()
        self.blobs = Blobs(self.sign_in.knows)
        image = options.image or IMAGE
        self.workspace = Workspace(options.subscription, options.resource_group, options.workspace)
        self.registry = ContainerRegistry(REGISTRY_HOST, self.sign_in)
        self.fleets = Fleets(
            self.blobs, lambda name: name == image or self.registry.has(name), lambda: self.faults.switches
        )
        self.manager = Manager(
            self.workspace, options.instance_type, self.blobs, self.fleets, self.faults, self.sign_in
        )
        self.door = Door(self.manager, self.fleets, self.sign_in)
        self.autoscaling = Autoscaling(self.manager, self.fleets, self.door)
        self._folder = Path(tempfile.mkdtemp(prefix="modelserve-azure-"))
        made = certificates.make(self._folder, NAMES)
        self._server = LoopbackServer(answering(self._answer), certificate=str(made.certificate)).start()
        self.proxy = Proxy(NAMES, self._server.port)
        own = {"image": image, "proxy": self.proxy.url, "ca": made.authority, "tenant": TENANT}
        principal = {"client_id": self.sign_in.client_id, "client_secret": self.sign_in.client_secret}
        self.options: dict[str, Any] = {**options.model_dump(), **own, **principal}
        self.backend = self._backend()

    def leftovers(self) -> list[str]:
        jobs = self.manager.batches.names()
        return [*self.manager.leftovers(), *self.blobs.names(), *self.fleets.names(), *jobs]

    def kill_replica(self, name: str) -> None:
        endpoint = self.options["endpoint_name"] or endpoint_name(self.workspace, name)
        for deployment in self.manager.resources.below(f"{self.workspace.endpoint(endpoint)}/deployments"):
            fleet = self.fleets.find(deployment["id"])
            if fleet is not None:
                fleet.kill_one()
                return
        raise DeploymentNotFoundError(f"Nothing of deployment {name!r} runs in this rehearsal.")

    def close(self) -> None:
        self.autoscaling.close()
        self.proxy.close()
        self._server.close()
        self.manager.batches.close()
        self.manager.operations.wait()
        self.fleets.close()
        self.registry.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _backend(self) -> Backend:
        # It loads this package when it is asked for a rehearsal.
        from modelserve_azureml.backend import AzureMLBackend

        return AzureMLBackend(self.options)

    def _answer(self, exchange: Exchange) -> Answered:
        call = Call.of(exchange)
        try:
            operation, answer = self._leads(call)
            return self._met(operation, answer)
        except Refusal as refusal:
            return refusal.answer

    def _leads(self, call: Call) -> tuple[str, Callable[[], Answered]]:
        """The operation's name, and what does it."""
        if call.host == SIGN_IN_HOST:
            return "SignIn", lambda: self.sign_in.answer(call)
        if call.host == BLOB_HOST:
            return f"Blob.{call.method}", lambda: self.blobs.answer(call)
        if call.host == REGISTRY_HOST:
            return self.registry.operation(call), lambda: self.registry.answer(call)
        if call.host.endswith(DOOR_SUFFIX) and call.path == "/jobs":
            return "BatchJobs.Begin", lambda: self.manager.batches.begin(call)
        if call.host.endswith(DOOR_SUFFIX):
            return "Score", lambda: self.door.answer(call)
        route, names = self.manager.find(call)
        return route.name, lambda: self._managed(route, call, names)

    def _managed(self, route: Route, call: Call, names: tuple[str, ...]) -> Answered:
        self.sign_in.check(call, _AUDIENCES)
        return self.manager.answer(route, call, names)

    def _met(self, operation: str, answer: Callable[[], Answered]) -> Answered:
        fault = self.faults.meet(operation)
        if isinstance(fault, Failing):
            raise Refusal(fault.status, fault.code, fault.message)
        if isinstance(fault, Throttled):
            raise Refusal(429, "TooManyRequests", "The request is being throttled.", {"retry-after": "0.05"})
        if isinstance(fault, NotYetSeen):
            raise Refusal(404, "ResourceNotFound", "The resource was not found.")
        answered = answer()
        if isinstance(fault, LostAnswer):
            raise Broken
        if isinstance(fault, Interrupted):
            interrupt()
        return answered
