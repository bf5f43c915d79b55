"""One server: a listening socket, models behind it, and everything in between put together.

settings ─► Server.start ── listens, not ready ─► load models ─► ready ── … ── stop: unready ─► drain ─► workers end

Lives in one event loop. Neither signals nor logging are touched: `process.py` owns a process, this does not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from modelserve.errors import ConfigError, ModelServeError
from modelserve.runtime.fetch import fetch
from modelserve.runtime.server import tls
from modelserve.runtime.server.access.audit import Audit
from modelserve.runtime.server.access.caller import Authority
from modelserve.runtime.server.access.keys import KeyFile
from modelserve.runtime.server.access.policy import Policy
from modelserve.runtime.server.access.tokens import Tokens
from modelserve.runtime.server.api import contract as contract_api
from modelserve.runtime.server.api import health, inference, openapi
from modelserve.runtime.server.api import metrics as metrics_api
from modelserve.runtime.server.api import repository as repository_api
from modelserve.runtime.server.api.pages import Pages
from modelserve.runtime.server.api.predictions import Predictions
from modelserve.runtime.server.app import App, Watcher
from modelserve.runtime.server.contracts import Contract
from modelserve.runtime.server.contracts.folders import bundle_in
from modelserve.runtime.server.http.listener import Listener
from modelserve.runtime.server.life import Life, Phase
from modelserve.runtime.server.models.catalogue import Catalogue
from modelserve.runtime.server.models.repository import Repository
from modelserve.runtime.server.observe import traces
from modelserve.runtime.server.observe.access_log import AccessLog
from modelserve.runtime.server.observe.history import History
from modelserve.runtime.server.observe.metrics import Metrics
from modelserve.runtime.server.routes import Route, Routes
from modelserve.runtime.server.settings import ServerSettings

if TYPE_CHECKING:
    from modelserve.runtime.server.rpc.front import Front

_log = logging.getLogger(__name__)


class Server:
    """Serves models over HTTP.

    Attributes:
        port, grpc_port: Where it listens, once started; 0 where it does not.
        routes: Every path that it answers.

    Raises:
        ConfigError: settings that cannot be kept, such as an open door beyond loopback that nobody asked for.
    """

    def __init__(self, settings: ServerSettings, contract: Contract | None = None) -> None:
        self.settings = settings
        self.port = self.grpc_port = 0
        self._contract = contract
        self._keys = None if settings.keys is None else KeyFile(settings.keys)
        self._tokens = _tokens(settings)
        self._tls = tls.context(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        self._fetched: tempfile.TemporaryDirectory[str] | None = None
        self.repository = Repository(_catalogue(settings, contract), settings.loading)
        self.life = Life(self.repository)
        self._history = History(self.repository.served)
        self._metrics = Metrics(self.repository, self._connections, lambda: not self.life.why_not_ready())
        self._traces = traces.from_environment(os.environ, version("modelserve"))
        self._watchers: list[Watcher] = [Audit(), self._metrics]
        if settings.access_log:
            self._watchers.insert(0, AccessLog())
        if self._traces is not None:  # first: the lines of the others name what it found
            self._watchers.insert(0, self._traces)
        self.routes = self._routes()
        self.routes += openapi.routes(self.routes, self.repository, version("modelserve"))
        self.routes += self._pages()
        self._access = self._policy()
        self._listener = Listener(self._app(Routes(self.routes)), settings.limits)
        self._front = None if settings.grpc_port is None else self._grpc()
        self._loading: asyncio.Task[None] | None = None

    async def start(self, *, wait: bool = False) -> None:
        """Listen at once, and load the models behind it. With `wait`, return only when it is ready.

        Raises:
            ConfigError: it cannot listen there.
            ModelServeError: with `wait`, the first model that did not load.
        """
        self.port = await self._listener.listen(self.settings.host, self.settings.port, self._tls)
        if self._front is not None:
            self.grpc_port = await self._front.listen(self.settings)
        if self._tokens is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._tokens.fetch)
        self._history.start()
        self._loading = asyncio.get_running_loop().create_task(self._load())
        if wait:
            await asyncio.shield(self._loading)
            if self.life.failures:
                raise self.life.failures[0]

    async def loaded(self) -> list[ModelServeError]:
        """Return when everything that is to be loaded at the start has been; what failed."""
        assert self._loading is not None
        await asyncio.shield(self._loading)
        return self.life.failures

    async def reload(self) -> list[ModelServeError]:
        """Take up keys, certificates and bundles as they lie on disk now; what failed stays as it was."""
        failures: list[ModelServeError] = []
        try:
            if self._keys is not None:
                self._keys.read()
            if self._tls is not None:
                tls.renew(self._tls, self.settings.tls_certificate, self.settings.tls_key)
        except ConfigError as error:
            failures.append(error)
        failures += await self.repository.reload()
        self.life.failures = [error for error in self.life.failures if error in failures]
        for failure in failures:
            _log.error("Not reloaded: %s", failure)
        _log.info("Reloaded: %s", ", ".join(sorted(served.name for served in self.repository.served())) or "no model")
        return failures

    async def stop(self, drain_s: float | None = None) -> None:
        """Say that it is not ready, let requests under way finish, end the workers. Quiet when called twice."""
        drain_s = self.settings.drain_s if drain_s is None else drain_s
        self.life.phase = Phase.DRAINING
        if drain_s and self.settings.unready_s:
            await asyncio.sleep(self.settings.unready_s)
        end = asyncio.get_running_loop().time() + drain_s
        calls = [] if self._front is None else [self._front.drain(drain_s)]
        await asyncio.gather(self._listener.drain(drain_s), *calls)
        if self._loading is not None:
            self._loading.cancel()
        self._listener.close()
        self._history.stop()
        await self.repository.close(max(0.0, end - asyncio.get_running_loop().time()))
        if self._traces is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._traces.close)
        if self._fetched is not None:
            self._fetched.cleanup()

    async def __aenter__(self) -> Self:
        try:
            await self.start(wait=True)
        except BaseException:
            await self.stop(0)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _load(self) -> None:
        try:
            await self._fetch()
            if not self.settings.on_demand:
                self.life.failures = await self.repository.load_all()
        except ModelServeError as error:
            self.life.failures = [error]
        if self.life.phase is Phase.STARTING:
            self.life.phase = Phase.READY
        for failure in self.life.failures:
            _log.error("Not loaded: %s", failure)

    async def _fetch(self) -> None:
        if self._contract is None or not self._contract.storage_uri:
            return
        self._fetched = tempfile.TemporaryDirectory(prefix="modelserve-model-", ignore_cleanup_errors=True)
        into = Path(self._fetched.name) / "model"
        await asyncio.get_running_loop().run_in_executor(None, fetch, self._contract.storage_uri, into)
        found = bundle_in(into)
        single = {} if found is None else {self.settings.name: found}
        self.repository.catalogue.use(None if single else into, single)

    def _app(self, routes: Routes) -> App:
        contract = self._contract
        id_headers = {b"x-request-id": None} | ({} if contract is None else {contract.request_id_header: None})
        return App(
            routes,
            self.life,
            self._access,
            self.settings.limits.body_bytes,
            tuple(self._watchers),
            tuple(reversed(id_headers)),
        )

    def _grpc(self) -> Front:
        from modelserve.runtime.server import rpc

        return rpc.Front(self.repository, self.life, self._app, self._listener.reserve, version("modelserve"))

    def _connections(self) -> int:
        return self._listener.connections

    def _routes(self) -> list[Route]:
        predictions = Predictions(self.repository, self.settings.default_model)
        own = [
            *health.routes(self.life, self.repository),
            *inference.routes(self.repository, version("modelserve")),
            *repository_api.routes(self.repository),
            *predictions.routes(),
            *metrics_api.routes(self._metrics),
        ]
        if self._contract is None:
            return own
        asked = contract_api.routes(self._contract, self.life, predictions)
        taken = {(route.method, route.pattern) for route in asked}
        return asked + [route for route in own if (route.method, route.pattern) not in taken]

    def _pages(self) -> list[Route]:
        pages = Pages(
            self.repository,
            self.life,
            self._history,
            self._connections,
            self.routes,
            version("modelserve"),
            closed=not self.settings.is_open,
            secure=self._tls is not None,
        )
        taken = {(route.method, route.pattern) for route in self.routes}
        return [route for route in pages.routes() if (route.method, route.pattern) not in taken]

    def _policy(self) -> Policy:
        settings = self.settings
        authorities: list[Authority] = [] if self._keys is None else [self._keys]
        if self._tokens is not None:
            authorities.append(self._tokens)
        closed = not settings.is_loopback and not settings.anonymous
        # With a contract the cloud's own paths are open and everything else is closed: nothing more has to be said.
        if closed and not authorities and self._contract is None and settings.tls_client_ca is None:
            raise ConfigError(
                f"Listening on {settings.host!r} lets other machines in, and nothing says who may ask. Make a key "
                "with 'modelserve keys create' and give its file by --keys; or say --anonymous where something in "
                "front of this server asks for keys."
            )
        return Policy(
            authorities,
            closed=closed and settings.tls_client_ca is None,
            local=settings.is_loopback and not settings.anonymous,
        )


def _tokens(settings: ServerSettings) -> Tokens | None:
    issuer, audience, jwks_url = settings.oidc_issuer, settings.oidc_audience, settings.oidc_jwks_url
    if not (issuer or audience or jwks_url):
        return None
    return Tokens(issuer=issuer, audience=audience, jwks_url=jwks_url)


def _catalogue(settings: ServerSettings, contract: Contract | None) -> Catalogue:
    single = {} if settings.model is None else {settings.name: settings.model}
    if not single and settings.models is None and (contract is None or not contract.storage_uri):
        raise ConfigError("There is no model to serve. Name a bundle (--model), or a folder of bundles (--models).")
    return Catalogue(settings.models, single)
