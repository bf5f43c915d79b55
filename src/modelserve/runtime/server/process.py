"""A process that is a server: its loop, its signals, its log, its exit status.

SIGTERM, SIGINT   unready, drain, end; a second one ends at once
SIGHUP            keys, certificates and models as they lie on disk now

Exit status: 0 ended as it was told, 1 no model could be loaded, 2 settings that make no sense.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

from modelserve.errors import ConfigError, ModelServeError
from modelserve.runtime.server.contracts import Contract
from modelserve.runtime.server.logs import set_up
from modelserve.runtime.server.server import Server
from modelserve.runtime.server.settings import ServerSettings

_log = logging.getLogger(__name__)
_GRACE_S = 3.0


def run(
    settings: ServerSettings, contract: Contract | None = None, *, told: Callable[[str], None] | None = None
) -> int:
    """Serve until a signal ends it; returns the exit status.

    Args:
        told: Called with the address once it listens, and when it is ready; without it the log says so.
    """
    set_up(settings.log_format, settings.log_level)
    _allow_many_connections()
    try:
        server = Server(settings, contract)
        # Modules and routes stay until the end: no collection of garbage needs to look at them again. Models, which may
        # go, are not there yet.
        gc.collect()
        gc.freeze()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(server, told or _log.info))
    except ConfigError as error:
        _log.error("%s", error)
        return 2


async def _serve(server: Server, told: Callable[[str], None]) -> int:
    ending = asyncio.Event()
    tasks: set[asyncio.Task[object]] = set()
    loop = asyncio.get_running_loop()

    def end() -> None:
        if ending.is_set():
            _log.warning("Told a second time: ending without the answers under way.")
            os._exit(1)
        # Whatever hangs (a model that is being loaded, a storage that does not answer): the deadline holds.
        settings = server.settings
        last = threading.Timer(settings.drain_s + settings.unready_s + _GRACE_S, os._exit, (1,))
        last.daemon = True
        last.start()
        ending.set()

    def reload() -> None:
        task: asyncio.Task[object] = loop.create_task(server.reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, reload)
    await server.start()
    scheme = "http" if server.settings.tls_certificate is None else "https"
    told(f"Listening on {scheme}://{server.settings.host}:{server.port}")
    if server.grpc_port:
        told(f"Listening for gRPC on {server.settings.host}:{server.grpc_port}")
    watching = loop.create_task(_watch(server, told))
    tasks.add(watching)
    ended = loop.create_task(ending.wait())
    done, _ = await asyncio.wait({watching, ended}, return_when=asyncio.FIRST_COMPLETED)
    status = watching.result() if watching in done else 0
    if not status:
        await ending.wait()
        _log.info("Ending: no longer ready; waiting for the answers under way.")
    await server.stop()
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    return status


async def _watch(server: Server, told: Callable[[str], None]) -> int:
    """Wait until the models are loaded; 1 where not a single one is, so that whoever started this learns of it."""
    failures: list[ModelServeError] = await server.loaded()
    if failures and not server.repository.served():
        return 1
    if not failures:
        told("Ready")
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ModuleNotFoundError:  # where it does not exist (Windows) the standard loop does the same, slower
        return None
    return uvloop.new_event_loop


def _allow_many_connections() -> None:
    """Each connection is a descriptor, and the usual soft limit of 1024 is lower than what the hard one allows."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
