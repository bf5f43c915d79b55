"""The loaded models: load, unload, reload, and room for the next one.

find ──► ready? ──► ServedModel
           │ no, and models are loaded on demand
           └──► load ──► room under the budget? ──► workers, warm-up ──► ready
                           └─ no: the least recently used one that rests is unloaded

Loading blocks, and happens in a thread of its own, one model after the other. All books are kept in the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from modelserve.bundle import Bundle
from modelserve.errors import ModelServeError, NotReadyError, OutOfMemoryError
from modelserve.runtime.server.models.catalogue import Catalogue, Place
from modelserve.runtime.server.models.served import ServedModel
from modelserve.runtime.server.models.sizing import Sizing
from modelserve.runtime.settings import PoolSettings

_log = logging.getLogger(__name__)
# What workers take beside the model: a first estimate, replaced by what is measured once it is loaded.
_BASE_BYTES = 24 << 20


class State(Enum):
    """Where a model is in its life; the words are those of the Open Inference Protocol's repository extension."""

    UNAVAILABLE = "UNAVAILABLE"
    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"


@dataclass(slots=True)
class Entry:
    """One version of a model. `reason` says why it is not ready."""

    place: Place
    state: State = State.UNAVAILABLE
    reason: str = "not loaded"
    served: ServedModel | None = None
    bytes_taken: int = 0
    under_way: asyncio.Future[Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Loading:
    """How models are loaded.

    Attributes:
        workers: Worker processes of each model.
        memory_bytes: Memory that all of them may take together; None for no bound.
        on_demand: Whether a request for a model that is not loaded loads it.
    """

    workers: int = 1
    pool: PoolSettings = field(default_factory=PoolSettings)
    memory_bytes: int | None = None
    on_demand: bool = False


class Repository:
    """Models by name and version. Lives in one event loop."""

    def __init__(self, catalogue: Catalogue, loading: Loading) -> None:
        self.catalogue = catalogue
        self.loading = loading
        self._entries: dict[tuple[str, str], Entry] = {}
        #: What a request looks up: by name and version, and by name and "" for the default version.
        self._ready: dict[tuple[str, str], ServedModel] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="modelserve-load")
        self._turn = asyncio.Lock()

    # What requests ask.

    def ready(self, name: str, version: str = "") -> ServedModel | None:
        """A model that is ready, at the cost of one look; None where it is not."""
        return self._ready.get((name, version))

    def find(self, name: str, version: str = "") -> ServedModel:
        """A model that is ready.

        Raises:
            NotReadyError: it is known, and not loaded.
            DeploymentNotFoundError: it is not known.
        """
        served = self._ready.get((name, version))
        if served is not None:
            return served
        place = self.catalogue.find(name, version)
        entry = self._entries.get((place.name, place.version))
        why = "not loaded" if entry is None else entry.reason
        raise NotReadyError(f"Model {name!r}, version {place.version}, is not ready: {why}.")

    async def demand(self, name: str, version: str = "") -> ServedModel:
        """A model that is ready, after loading it where that is allowed.

        Raises:
            ModelServeError: as `find`, and what loading raises.
        """
        try:
            return self.find(name, version)
        except NotReadyError:
            if not self.loading.on_demand:
                raise
        place = self.catalogue.find(name, version)
        await self.load(place.name, place.version)
        return self.find(name, version)

    def entries(self) -> list[Entry]:
        """Every version that there is, loaded or not."""
        known = {(place.name, place.version): place for place in self.catalogue.places()}
        gone = [entry for key, entry in self._entries.items() if key not in known]
        return [self._entries.get(key, Entry(place)) for key, place in known.items()] + gone

    def served(self) -> list[ServedModel]:
        """The models that are ready, each once."""
        return [entry.served for entry in self._entries.values() if entry.served is not None]

    # What administrators ask.

    async def load(self, name: str, version: str = "") -> None:
        """Load a model, or load it again where its bundle has changed; the old one answers until the new one does.

        Raises:
            DeploymentNotFoundError: there is none.
            OutOfMemoryError: there is no room, and nothing that could make room.
            ModelServeError: it cannot be loaded; the others are as they were.
        """
        place = self.catalogue.find(name, version)
        entry = self._entries.setdefault((place.name, place.version), Entry(place))
        entry.place = place
        await self._once(entry, lambda: self._load(entry))

    async def unload(self, name: str, version: str = "") -> None:
        """Let requests under way finish, then end the workers; without a version, of every version.

        Raises:
            DeploymentNotFoundError: it is not known.
        """
        chosen = [entry for key, entry in self._entries.items() if key[0] == name and version in {"", key[1]}]
        if not chosen:
            self.catalogue.find(name, version)
        for entry in chosen:
            if entry.served is not None:
                await self._once(entry, lambda entry=entry: self._unload(entry))  # type: ignore[misc]  # mypy and defaults

    async def scale(self, served: ServedModel, sizing: Sizing) -> None:
        """Have so many workers for one model.

        Raises:
            InvalidScaleError, WorkerStartError: that many cannot be.
        """
        async with self._turn:
            await self._blocking(served.scale, sizing)

    async def load_all(self) -> list[ModelServeError]:
        """Load the default version of every model; what does not load is told and hurts no other."""
        failures = []
        for name in dict.fromkeys(place.name for place in self.catalogue.places()):
            try:
                await self.load(name)
            except ModelServeError as error:
                failures.append(error)
        return failures

    async def reload(self) -> list[ModelServeError]:
        """Bring what is loaded up to what lies on disk: changed bundles again, new models too, vanished ones not."""
        known = {(place.name, place.version) for place in self.catalogue.places()}
        for key, entry in list(self._entries.items()):
            if key not in known and entry.served is not None:
                await self._once(entry, lambda entry=entry: self._unload(entry))  # type: ignore[misc]  # as above
                del self._entries[key]
        failures = [] if self.loading.on_demand else await self.load_all()
        for entry in [entry for entry in self._entries.values() if entry.served is not None]:
            try:
                await self.load(*entry.place[:2])
            except ModelServeError as error:
                failures.append(error)
        return failures

    async def close(self, drain_s: float) -> None:
        """End all workers, also those of a model that is being loaded, if that ends in time."""
        loading = {entry.under_way for entry in self._entries.values() if entry.under_way is not None}
        if loading:
            await asyncio.wait(loading, timeout=drain_s)
        for entry in self._entries.values():
            if entry.served is not None:
                await self._blocking(entry.served.close, drain_s)
                entry.served = None
        self._ready.clear()
        self._thread.shutdown(wait=False)

    # In turn.

    async def _once(self, entry: Entry, work: Callable[[], Awaitable[None]]) -> None:
        """Do this for an entry, one after the other; who asks for what is under way waits for that."""
        if entry.under_way is not None:
            await asyncio.shield(entry.under_way)
            return
        entry.under_way = asyncio.ensure_future(self._in_turn(work))
        entry.under_way.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.shield(entry.under_way)
        finally:
            entry.under_way = None

    async def _in_turn(self, work: Callable[[], Awaitable[None]]) -> None:
        async with self._turn:
            await work()

    async def _load(self, entry: Entry) -> None:
        before = entry.served
        if before is None:
            entry.state, entry.reason = State.LOADING, "loading"
        try:
            bundle: Bundle = await self._blocking(Bundle.open, entry.place.path)
            if before is None:
                await self._make_room(entry, bundle)
                entry.served = await self._blocking(
                    ServedModel.load, *entry.place[:2], bundle, self.loading.workers, self.loading.pool
                )
            elif before.bundle.digest != bundle.digest:
                await self._blocking(before.update, bundle)
            assert entry.served is not None
            entry.bytes_taken = await self._blocking(lambda: entry.served.memory_bytes if entry.served else 0)
            entry.state, entry.reason = State.READY, ""
        except ModelServeError as error:
            _log.error("Model %r, version %s, was not loaded: %s", *entry.place[:2], error)
            if before is None:
                entry.state, entry.reason = State.UNAVAILABLE, str(error)
            raise
        finally:
            self._index()

    async def _unload(self, entry: Entry) -> None:
        served = entry.served
        if served is None:
            return
        entry.served, entry.state, entry.reason = None, State.UNLOADING, "unloading"
        self._index()
        await self._blocking(served.close)
        entry.state, entry.reason, entry.bytes_taken = State.UNAVAILABLE, "unloaded", 0

    async def _make_room(self, entry: Entry, bundle: Bundle) -> None:
        budget = self.loading.memory_bytes
        if budget is None:
            return
        needed = entry.bytes_taken or bundle.size_bytes * 2 + _BASE_BYTES * max(1, self.loading.workers)
        while (taken := sum(other.bytes_taken for other in self._entries.values() if other.served)) + needed > budget:
            resting = [other for other in self._entries.values() if other.served and not other.served.inflight]
            if not resting:
                raise OutOfMemoryError(
                    f"Model {entry.place.name!r} needs about {needed >> 20} MiB; {taken >> 20} of {budget >> 20} MiB "
                    "are taken by models that are at work. Raise the budget, or unload one."
                )
            await self._unload(min(resting, key=lambda other: other.served.used_at if other.served else 0.0))

    def _index(self) -> None:
        ready: dict[tuple[str, str], ServedModel] = {}
        for place in self.catalogue.places():
            entry = self._entries.get((place.name, place.version))
            served = None if entry is None else entry.served
            if served is not None:
                ready[place.name, place.version] = served
                ready[place.name, ""] = served  # the highest that is loaded: places come in that order
        self._ready = ready

    async def _blocking(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
