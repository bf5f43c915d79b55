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
from modelserve.runtime.memory import create_shared_file
from modelserve.runtime.settings import PoolSettings


def load_order(servable: Bundle | LiveCallable, threads: int) -> tuple[dict[str, Any], list[int]]:
    """What a worker is told to load, as `worker.load` reads it, and the descriptors that it needs for it."""
    common = {"sys_path": [entry for entry in sys.path if entry], "threads": threads}
    if isinstance(servable, Bundle):
        return {**common, "bundle": str(servable.path.absolute())}, []
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
    if settings.start == "spawn" or (settings.start == "auto" and not _has_zygote()):
        return SpawnLauncher
    # Only what runs no thread survives the fork; a user's own code may start some.
    preload = settings.threads == 1 and isinstance(servable, Bundle)
    return _zygote_maker(load if preload else None, descriptors)


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


def _has_zygote() -> bool:
    return hasattr(os, "memfd_create") and hasattr(os, "pidfd_open")
