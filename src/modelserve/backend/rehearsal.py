"""A place's loopback stand-in, as the core sees it: the same backend, minus the bill.

    with backend.rehearsal() as rehearsal:
        rehearsal.backend.deploy(...)      the unmodified adapter and the vendor's SDK, over 127.0.0.1

What it starts ends with it.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from modelserve.errors import MissingExtraError

if TYPE_CHECKING:
    from modelserve.backend.contract import Backend


class Rehearsal(ABC):
    """A stand-in that runs until the end of `with`.

    Attributes:
        backend: With the same options as the one that was asked for it, talking to the stand-in.
        only_live: What no stand-in shows, one line each.
    """

    backend: Backend
    only_live: Sequence[str] = ()

    @abstractmethod
    def leftovers(self) -> list[str]:
        """Everything that exists at the stand-in: resources, objects, processes."""

    @abstractmethod
    def kill_replica(self, name: str) -> None:
        """End one replica of the deployment at once, as a machine that breaks does.

        Raises:
            DeploymentNotFoundError: nothing of that name runs.
        """

    @abstractmethod
    def close(self) -> None:
        """End every process. Quiet when called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def needing_its_packages() -> Iterator[None]:
    """Around the import of a stand-in: what is not installed is answered with the remedy."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package.startswith("modelserve"):
            raise  # a broken stand-in, not a missing package
        raise MissingExtraError(
            f"A rehearsal needs the package {package!r}, which is not installed. "
            'Install it with: pip install "modelserve[rehearsal]"'
        ) from error
