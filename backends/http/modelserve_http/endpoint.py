"""One model of a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn
from urllib.parse import quote

import httpx

from modelserve.backend import (
    Endpoint,
    EndpointStatus,
    Limits,
    ReplicaStatus,
    Reply,
    ReplyFuture,
    Request,
    Scale,
    Servable,
    State,
    oip,
)
from modelserve.errors import BackendError, DeploymentClosedError, DeploymentNotFoundError, NotSupportedError
from modelserve_http import protocol
from modelserve_http.options import HttpOptions
from modelserve_http.wire import Wire

_MIB = 1 << 20


class HttpEndpoint(Endpoint):
    """A model as its server sees it.

    Args:
        put: Makes the server answer with another model; None where this program cannot write to its folder.
        remove: Takes the model from the server.
    """

    def __init__(
        self,
        name: str,
        options: HttpOptions,
        *,
        put: Callable[[str, Servable], None] | None = None,
        remove: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self._options = options
        self._put = put
        self._remove = remove
        self._wire = Wire(options)
        self._closed = False
        self._path = f"/v2/models/{quote(name, safe='')}"
        try:
            self._look()
        except BaseException:
            self._wire.close()
            raise

    @property
    def limits(self) -> Limits:
        return Limits(
            request_bytes=self._options.max_body_mib * _MIB,
            timeout_s=self._options.timeout_s,
            parallel=min(8, self._options.connections),
        )

    def submit(self, request: Request) -> ReplyFuture:
        self._check_open()
        header = oip.request_header(request.message.header, self.signature.primary)
        content = b"".join((header, *request.message.buffers))
        return self._wire.start(self._ask(content, len(header), request.timeout_s))

    def scale(self, scale: Scale) -> None:
        self._check_open()
        for unsupported in ("target_cpu", "target_requests_per_minute"):
            if unsupported in scale.targets:
                raise NotSupportedError(f"A server's workers scale by target_inflight, not by {unsupported}.")
        wanted: dict[str, Any] = {"minimum": scale.minimum, "maximum": scale.maximum, **scale.targets}
        self._administer("POST", "scale", {"workers": scale.minimum} if scale.is_fixed else wanted)

    def status(self) -> EndpointStatus:
        self._check_open()
        try:
            content = self._wire.call("GET", f"{self._path}/status").json()
        except DeploymentNotFoundError:
            # A server of another make, or a model that is gone: this tells the two apart.
            self._wire.call("GET", f"{self._path}/ready")
            return EndpointStatus(self.name, "http", State.READY, "", None, (ReplicaStatus("server", State.READY),))
        state = State.READY if content["ready"] >= content["wanted"] else State.STARTING
        if not content["wanted"]:
            state = State.RESTING
        replicas = tuple(_replica(worker) for worker in content["workers"])
        return EndpointStatus(self.name, "http", state, content["digest"], _scale(content), replicas)

    def update(self, servable: Servable) -> None:
        self._check_open()
        if self._put is None:
            raise NotSupportedError(
                "Updating needs the server's folder of models. Give the option folder=, or put the bundle there."
            )
        self._put(self.name, servable)
        self._look()

    def logs(self) -> Iterable[str]:
        self._check_open()
        lines: list[str] = self._administer("GET", "logs").json()["lines"]
        return lines

    def close(self) -> None:
        self._closed = True
        self._wire.close()

    def delete(self) -> None:
        if self._remove is None:
            raise NotSupportedError(
                "Deleting needs the server's folder of models. Give the option folder=, or unload the model there."
            )
        self._remove(self.name)
        self.close()

    def _administer(self, method: str, verb: str, content: Any = None) -> httpx.Response:
        """Ask what only a server of our own make can be asked."""
        path = f"/v2/repository/models/{quote(self.name, safe='')}/{verb}"
        try:
            return self._wire.call(method, path, json=content)
        except DeploymentNotFoundError as error:
            # A model that is gone, or a server of another make: this tells the two apart.
            self._wire.call("GET", f"{self._path}/ready")
            raise NotSupportedError(
                f"The server at {self._options.url} does not know {verb!r}: it is of another make, or an older version."
            ) from error

    async def _ask(self, content: bytes, header_bytes: int, timeout_s: float) -> Reply:
        headers = {"content-type": "application/octet-stream", oip.HEADER_LENGTH: str(header_bytes)}
        answer = await self._wire.ask(
            "POST", f"{self._path}/infer", content=content, headers=headers, timeout_s=timeout_s
        )
        return protocol.reply(answer)

    def _look(self) -> None:
        metadata: Any = self._wire.call("GET", self._path).json()
        if not isinstance(metadata, dict):
            raise BackendError(f"{self._options.url} does not speak the Open Inference Protocol.")
        self.signature = protocol.signature(metadata)
        self.rows_independent = bool((metadata.get("parameters") or {}).get("rows_independent", False))

    def _check_open(self) -> None:
        if self._closed:
            self._refuse()

    def _refuse(self) -> NoReturn:
        raise DeploymentClosedError(f"Deployment {self.name!r} was closed. Attach to it again.")


def _scale(content: dict[str, Any]) -> Scale:
    """What was asked of the server, or as many workers as there are."""
    asked = content.get("scale")
    if asked and asked["maximum"]:
        return Scale(**asked)
    return Scale.fixed(max(1, content["wanted"]))


def _replica(worker: dict[str, Any]) -> ReplicaStatus:
    states = {"starting": State.STARTING, "ready": State.READY, "retiring": State.DRAINING}
    return ReplicaStatus(f"worker-{worker['pid']}", states.get(worker["stage"], State.STARTING), worker)
