"""Every container of the stand-in, by whoever owns it: an endpoint or a batch job.

They outlive their end as far as their lines go, which the log still has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from google.api_core import exceptions as google_errors

from modelserve.standin.fleet import Fleet, NoCapacityError, NotHealthyError

_LINES_TOLD = 20

OpenFleet = Callable[[str, Any, Any], Fleet]


class Fleets:
    """The fleets that run, and those that ran.

    Args:
        open_fleet: Makes the still empty fleet of an owner's deployed model.
    """

    def __init__(self, open_fleet: OpenFleet) -> None:
        self._open_fleet = open_fleet
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], Fleet] = {}
        self._starting: dict[tuple[str, str], Fleet] = {}
        self._ended: dict[str, list[Fleet]] = {}
        self._is_closed = False

    @property
    def owners(self) -> list[str]:
        """Whoever has or had containers."""
        with self._lock:
            return sorted({owner for owner, _ in self._running} | set(self._ended))

    def start(self, owner: str, deployed: Any, model: Any, replicas: int) -> Fleet:
        """A fleet whose replicas are all ready.

        Raises:
            GoogleAPICallError: they do not become ready, there is no room for them, or the stand-in ends.
        """
        with self._lock:
            if self._is_closed:
                raise google_errors.ServiceUnavailable("The stand-in ends.")
            fleet = self._open_fleet(owner, deployed, model)
            self._starting[owner, deployed.id] = fleet
        try:
            resized(fleet, replicas)
        except BaseException:
            with self._lock:
                self._ended.setdefault(owner, []).append(fleet)
            fleet.stop()
            raise
        finally:
            self._starting.pop((owner, deployed.id))
        with self._lock:
            self._running[owner, deployed.id] = fleet
        return fleet

    def stop(self, owner: str, deployed_id: str) -> None:
        """End one fleet, also while it starts. Quiet where it has ended."""
        with self._lock:
            starting = self._starting.get((owner, deployed_id))
            running = self._running.pop((owner, deployed_id), None)
            if running is not None:
                self._ended.setdefault(owner, []).append(running)
        for fleet in filter(None, (starting, running)):
            fleet.stop()

    def find(self, owner: str, deployed_id: str) -> Fleet | None:
        """The fleet that runs."""
        return self._running.get((owner, deployed_id))

    def of(self, owner: str) -> list[Fleet]:
        """One owner's: those that ran, and those that run."""
        with self._lock:
            running = [fleet for (known, _), fleet in self._running.items() if known == owner]
            return [*self._ended.get(owner, []), *running]

    def close(self) -> None:
        """End every container, those that are about to start too."""
        with self._lock:
            self._is_closed = True
            running = [*self._starting.values(), *self._running.values()]
            self._running.clear()
        for fleet in running:
            fleet.stop()


def resized(fleet: Fleet, replicas: int) -> None:
    """Have this many ready, or fail in the service's words."""
    try:
        fleet.resize(replicas)
    except NotHealthyError as error:
        told = "\n".join(error.lines[-_LINES_TOLD:])
        raise google_errors.FailedPrecondition(
            f"Model server exited unexpectedly or never became healthy. Model server logs: {told}"
        ) from error
    except NoCapacityError as error:
        raise google_errors.ResourceExhausted(
            f"The machine type is out of stock in this region for now. {error} Try another region or machine type."
        ) from error
