"""How workers get their model: what they are told to load, and by which launcher they come."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from modelserve.bundle import Bundle, LiveCallable
from modelserve.bundle.manifest import signature_to_json
from modelserve.errors import WorkerStartError
from modelserve.runtime.launch import Launcher, SpawnLauncher, ZygoteLauncher
from modelserve.runtime.mapping import mapped_model
from modelserve.runtime.memory import create_shared_file
from modelserve.runtime.settings import PoolSettings


def load_order(servable: Bundle | LiveCallable, settings: PoolSettings) -> tuple[dict[str, Any], list[int]]:
    """What a worker is told to load, as `worker.load` reads it, and the descriptors that it needs for it."""
    common = {"sys_path": [entry for entry in sys.path if entry], "threads": settings.threads}
    if isinstance(servable, Bundle):
        mapped = None if _is_loaded_once(servable, settings) else mapped_model(servable)
        where = {"bundle": str(servable.path.absolute()), "mapped": str(mapped) if mapped else None}
        return {**common, **where}, []
    descriptor = create_shared_file(len(servable.payload))
    os.pwrite(descriptor, servable.payload, 0)
    content = {
        "live_bytes": len(servable.payload),
        "signature": signature_to_json(servable.signature),
        "rows_independent": servable.rows_independent,
    }
    return {**common, **content}, [descriptor]


def launcher_maker(
    servable: Bundle | LiveCallable, settings: PoolSettings, load: dict[str, Any], descriptors: list[int]
) -> Callable[[], Launcher]:
    """What starts the workers of this model: a zygote where there can be one, else each by itself."""
    if not _forks(settings):
        return SpawnLauncher
    return _zygote_maker(load if _is_loaded_once(servable, settings) else None, descriptors)


def _zygote_maker(load: dict[str, Any] | None, descriptors: list[int]) -> Callable[[], Launcher]:
    def make() -> Launcher:
        read_errors, write_errors = os.pipe()
        try:
            return ZygoteLauncher(load, descriptors, errors=write_errors)
        except WorkerStartError as error:
            os.set_blocking(read_errors, False)
            try:
                said = os.read(read_errors, 1 << 16).decode(errors="replace").strip()
            except BlockingIOError:
                said = ""
            raise WorkerStartError(f"{error}{chr(10) + said if said else ''}") from error
        finally:
            os.close(read_errors)
            os.close(write_errors)

    return make


def _forks(settings: PoolSettings) -> bool:
    return settings.start == "zygote" or (settings.start == "auto" and _has_zygote())


def _is_loaded_once(servable: Bundle | LiveCallable, settings: PoolSettings) -> bool:
    """Whether workers are forked with the model in them."""
    # Only what runs no thread survives the fork; a user's own code may start some.
    return isinstance(servable, Bundle) and settings.threads == 1 and _forks(settings)


def _has_zygote() -> bool:
    return hasattr(os, "memfd_create") and hasattr(os, "pidfd_open")
