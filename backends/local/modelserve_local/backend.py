"""The local backend: each deployment is a pool of worker processes that ends with this program."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from modelserve.backend import (
    Backend,
    Capability,
    DeploymentSpec,
    Endpoint,
    EndpointStatus,
    Scale,
    Servable,
    Support,
    read_options,
)
from modelserve.bundle import LiveCallable
from modelserve.errors import ConfigError, NotSupportedError
from modelserve.runtime import Choice, PoolSettings, choose, threads_wanted, usable_cores
from modelserve_local.endpoint import LocalEndpoint, Running
from modelserve_local.options import LocalOptions

_MOST_WORKERS_BY_DEFAULT = 8


class LocalBackend(Backend):
    """Runs models in worker processes of this machine."""

    name = "local"
    support: ClassVar[Mapping[Capability, Support]] = {
        Capability.SCALE: Support.FULL,
        Capability.SCALE_TO_ZERO: Support.FULL,
        Capability.AUTOSCALE: Support.FULL,
        Capability.UPDATE: Support.FULL,
        Capability.ATTACH: Support.IMPOSSIBLE,  # workers end with the program that owns them
        Capability.LOGS: Support.FULL,
        Capability.LIVE_CALLABLE: Support.FULL,
        Capability.BATCH: Support.NOT_IMPLEMENTED,
        Capability.REHEARSAL: Support.IMPOSSIBLE,  # it is what others are rehearsed against
    }
    options: ClassVar[Mapping[str, str]] = LocalOptions.described()

    # What runs belongs to the process, as its workers do: every backend object of this process sees the same.
    _running: ClassVar[dict[str, Running]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = read_options(LocalOptions, self.name, options)

    def deploy(
        self, servable: Servable, spec: DeploymentSpec, *, on_progress: Callable[[str], None] | None = None
    ) -> Endpoint:
        with self._lock:
            running = self._running.get(spec.name)
            if running is None:
                if on_progress is not None:
                    on_progress(f"Starting the workers of {spec.name}")
                running = self._start(servable, spec, on_progress)
                self._running[spec.name] = running
            elif running.digest != servable.digest:
                if on_progress is not None:
                    on_progress(f"Updating {spec.name}")
                running.swap(servable)
            running.holds += 1
        return LocalEndpoint(running, self._ended)

    def attach(self, name: str) -> Endpoint:
        raise NotSupportedError(
            f"Local workers end with the program that owns them, so {name!r} cannot be attached to. "
            "Serve the model in this program, or serve it over HTTP and attach to its address."
        )

    def list(self) -> list[EndpointStatus]:
        with self._lock:
            running = list(self._running.values())
        return [LocalEndpoint(one, _nothing).status() for one in running]

    @classmethod
    def _ended(cls, running: Running, delete: bool) -> None:  # a callback of two values
        with cls._lock:
            running.holds -= 1
            if running.holds > 0 and not delete:
                return
            if cls._running.get(running.name) is running:
                del cls._running[running.name]
        running.pool.close()

    def _start(self, servable: Servable, spec: DeploymentSpec, on_progress: Callable[[str], None] | None) -> Running:
        settings, workers, why = self._settings(), self._options.workers, ""
        if workers == "auto":
            choice = self._choose(servable, settings)
            settings, workers, why = choice.applied_to(settings), choice.setting.workers, f"Chose {choice.reason}"
            if on_progress is not None:
                on_progress(why)
        if spec.timeout_s is not None:
            settings = replace(settings, start_timeout_s=spec.timeout_s)
        workers = workers or max(1, min(usable_cores() // settings.threads, _MOST_WORKERS_BY_DEFAULT))
        return Running(spec.name, servable, spec.scale or Scale.fixed(workers), settings, why)

    def _choose(self, servable: Servable, settings: PoolSettings) -> Choice:
        if self._options.threads is not None or self._options.pin:
            raise ConfigError(
                "workers = 'auto' chooses threads and pin as well. Leave them out, or give workers a number."
            )
        if isinstance(servable, LiveCallable):
            raise ConfigError(
                "workers = 'auto' asks the model its example, and a plain Python callable has none. "
                "Give workers a number."
            )
        return choose(servable, settings)

    def _settings(self) -> PoolSettings:
        options = self._options
        return PoolSettings(
            threads=options.threads or threads_wanted() or 1,
            pin=options.pin,
            latency_budget_s=options.latency_budget_ms / 1e3,
            timeout_s=options.timeout_s,
            max_inflight=options.max_inflight,
            start=options.start,
        )


def _nothing(_running: Running, _delete: bool) -> None:  # a callback of two values
    """A look is no hold."""
