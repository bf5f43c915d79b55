"""What a place that runs models must offer: a few verbs, and an open word on what it lacks.

    Backend.deploy(servable, spec) ──► Endpoint.submit(Request) ──► ReplyFuture ──► Reply

A backend carries bytes, never tensors. Encoding, checking and splitting happen above it, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

from modelserve.backend.jobs import Job, WorkPart
from modelserve.backend.preflight import Finding
from modelserve.backend.rehearsal import Rehearsal
from modelserve.backend.spec import DeploymentSpec, EndpointStatus, Scale
from modelserve.bundle import Bundle, LiveCallable
from modelserve.errors import DeploymentNotFoundError, NotSupportedError
from modelserve.tensors import Signature
from modelserve.wire import Message
from modelserve.wire import Reply as Reply

CONTRACT_VERSION = 1

Servable: TypeAlias = Bundle | LiveCallable


class Support(Enum):
    """How far a place has something."""

    FULL = "full"
    NOT_IMPLEMENTED = "not implemented"
    IMPOSSIBLE = "impossible"


class Capability(Enum):
    """What only some places can do."""

    SCALE = "scale"
    SCALE_TO_ZERO = "scale to zero"
    REST = "rest"
    AUTOSCALE = "autoscale"
    UPDATE = "update"
    ATTACH = "attach"
    LOGS = "logs"
    LIVE_CALLABLE = "live callable"
    BATCH = "batch"
    REHEARSAL = "rehearsal"


class Request(NamedTuple):
    """One request on its way. `rows` is the size of its batch axis."""

    message: Message
    rows: int
    timeout_s: float


class ReplyFuture(Protocol):
    """An answer to come. It has a deadline: waiting for it always ends."""

    def result(self) -> Reply:
        """Wait for the answer.

        Raises:
            ModelServeError: there is none; `DeadlineError` when it did not come in time.
        """
        ...

    def __await__(self) -> Generator[Any, None, Reply]: ...

    def done(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may be. `None` means no limit of the place's own.

    Attributes:
        request_bytes: Largest request, header and body together.
        timeout_s: Longest time an answer may take.
        parallel: How many requests are worth having under way at once.
        split_rows: Rows above which splitting a request over the replicas was measured to be faster.
    """

    request_bytes: int | None = None
    timeout_s: float | None = None
    parallel: int = 1
    split_rows: int | None = None


class Endpoint(ABC):
    """One running model, as its place sees it. May be used from many threads and tasks at once."""

    name: str
    signature: Signature
    #: As the servable's; what has not said so is never split.
    rows_independent: bool = False

    @abstractmethod
    def submit(self, request: Request) -> ReplyFuture:
        """Send a request on its way.

        Raises:
            OverloadedError: too much is under way.
            DeploymentClosedError: the endpoint was closed.
        """

    @property
    @abstractmethod
    def limits(self) -> Limits: ...

    @abstractmethod
    def scale(self, scale: Scale) -> None:
        """Have this many replicas; returns when they are there."""

    @abstractmethod
    def status(self) -> EndpointStatus: ...

    @abstractmethod
    def update(self, servable: Servable) -> None:
        """Answer with another model from now on; no request fails or gets a mixed answer."""

    @abstractmethod
    def logs(self) -> Iterable[str]:
        """Lines that the replicas wrote, oldest first."""

    def batch(self, name: str, parts: Iterable[WorkPart]) -> Job:
        """Have the place's own batch service answer a data set; returns once the job is under way.

        A job of that name that is there already is the answer, and nothing is taken of `parts`. A call that fails or
        is interrupted leaves nothing that it made; deleting the endpoint deletes its jobs.

        Args:
            name: Lower-case letters, digits and hyphens, at most 24; the same work has the same name.

        Raises:
            NotSupportedError: the place has no such service.
            PreflightError: these options do not fit it.
        """
        raise NotSupportedError(f"Where {self.name!r} runs there is no batch service. Ask the endpoint itself.")

    @abstractmethod
    def close(self) -> None:
        """Let go of it. Quiet when called twice."""

    @abstractmethod
    def delete(self) -> None:
        """Remove it and everything made for it. Quiet when it is gone already."""


class Backend(ABC):
    """A place that runs models.

    Attributes:
        options: The names of the options it takes, each with one line on what it means.
    """

    name: ClassVar[str]
    contract_version: ClassVar[int] = CONTRACT_VERSION
    support: ClassVar[Mapping[Capability, Support]]
    options: ClassVar[Mapping[str, str]]

    @abstractmethod
    def __init__(self, options: Mapping[str, Any]) -> None:
        """Raises ConfigError for an option that is unknown or has a value that makes no sense."""

    @abstractmethod
    def deploy(
        self, servable: Servable, spec: DeploymentSpec, *, on_progress: Callable[[str], None] | None = None
    ) -> Endpoint:
        """Run `servable` under `spec.name`; an endpoint of that name with the same model is left as it is.

        A deploy that fails or is interrupted leaves nothing that it made.
        """

    @abstractmethod
    def attach(self, name: str) -> Endpoint:
        """The endpoint called `name`, made earlier or elsewhere.

        Raises:
            DeploymentNotFoundError: there is none.
            NotSupportedError: endpoints here end with the program that made them.
        """

    @abstractmethod
    def list(self) -> list[EndpointStatus]:
        """The endpoints that modelserve made here; what a deploy left behind is one that is `FAILED`."""

    def delete(self, name: str) -> None:
        """Remove everything that modelserve made here under this name, leftovers too. Quiet when there is nothing."""
        try:
            endpoint = self.attach(name)
        except DeploymentNotFoundError:
            return
        endpoint.delete()

    def preflight(self, servable: Servable, spec: DeploymentSpec) -> Sequence[Finding]:
        """What `deploy` would check before it creates anything; touches nothing."""
        return ()

    def policy(self) -> dict[str, Any]:
        """The least permissions that these options need, in the place's own form, by who needs them.

        Raises:
            NotSupportedError: nobody needs any.
        """
        raise NotSupportedError(f"Backend {self.name!r} needs no permissions of an account.")

    def rehearsal(self) -> Rehearsal:
        """A stand-in for this place on this machine, with these options.

        Raises:
            NotSupportedError: there is none.
            MissingExtraError: its packages are not installed.
        """
        raise NotSupportedError(f"Backend {self.name!r} has no rehearsal: {self.name} is the real thing already.")

    def supports(self, capability: Capability) -> Support:
        """How far this place has `capability`."""
        return self.support.get(capability, Support.NOT_IMPLEMENTED)
