"""What a server can be told, and by whom.

command line  >  MODELSERVE_SERVER_* environment  >  the contract of the cloud that it runs in  >  default
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelserve.errors import ConfigError
from modelserve.runtime.cores import threads_wanted, usable_cores
from modelserve.runtime.server.contracts.contract import Contract
from modelserve.runtime.server.http.limits import Limits
from modelserve.runtime.server.models.repository import Loading
from modelserve.runtime.settings import PoolSettings

PREFIX = "MODELSERVE_SERVER_"
_MIB = 1 << 20
_MOST_WORKERS = 64
_LOOPBACK = {"localhost", "::1"}

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, le=86400)]


class ServerSettings(BaseModel):
    """A server's settings; each field's description is the line that users see."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path | None = Field(None, description="A bundle to serve.")
    name: str = Field("model", description="The name under which that bundle is served.")
    models: Path | None = Field(None, description="A folder of bundles to serve: NAME/ or NAME/VERSION/ below it.")
    default_model: str = Field("", description="The model of paths that name none, such as /invocations.")
    on_demand: bool = Field(False, description="Load a model when it is first asked for, instead of at the start.")
    memory_mib: Count | None = Field(
        None, description="Memory that all models may take; the least recently used ones make room."
    )

    host: str = Field("127.0.0.1", description="Address to listen on. Beyond loopback, callers need keys.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="Port for HTTP; 0 lets the system choose.")

    grpc_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        None, description="Port for gRPC, beside HTTP; 0 lets the system choose. Default: none."
    )

    workers: Annotated[int, Field(ge=1, le=_MOST_WORKERS)] | None = Field(
        None, description="Worker processes of each model. Default: one for each usable processor, at most 8."
    )
    threads: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None, description="Threads within one operation of a worker. Default: OMP_NUM_THREADS where it is set, else 1."
    )
    latency_budget_ms: Annotated[float, Field(ge=0, le=10_000)] = Field(
        0.0, description="How long a request may be held back, under load, so that more share a run."
    )
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(60.0, description="Longest time for an answer.")
    max_inflight: Count = Field(8192, description="Requests of a model under way at once; more are answered 429.")

    drain_s: Seconds = Field(25.0, description="Time for requests under way when the server is told to end.")
    unready_s: Seconds = Field(
        0.0, description="Time for which it goes on answering after it said that it is not ready, before it drains."
    )

    max_body_mib: Count = Field(128, description="Largest body, as sent and as unfolded.")
    max_bodies_mib: Count = Field(1024, description="All bodies that are held at once.")
    max_connections: Count = Field(8192, description="Open connections.")

    keys: Path | None = Field(None, description="The file of API keys, as 'modelserve keys' writes it.")
    anonymous: bool = Field(
        False, description="Answer callers without keys beyond loopback too: something in front asks for them."
    )
    oidc_issuer: str = Field("", description="Identity provider whose tokens are taken: the issuer they name.")
    oidc_audience: str = Field("", description="The audience that tokens must be made for.")
    oidc_jwks_url: str = Field("", description="Where the identity provider publishes its keys (JWKS), https.")
    tls_certificate: Path | None = Field(None, description="Certificate chain of the server, PEM.")
    tls_key: Path | None = Field(None, description="Its private key, PEM.")
    tls_client_ca: Path | None = Field(None, description="Authority whose certificates clients must show, PEM.")

    access_log: bool = Field(False, description="Write a log line for every answer.")
    log_format: Literal["json", "text"] = Field("json", description="How log lines are written: json or text.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="From which level on.")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in _LOOPBACK or self.host.startswith("127.")

    @property
    def is_open(self) -> bool:
        """Whether callers need not say who they are."""
        nobody_known = self.keys is None and not self.oidc_issuer
        return nobody_known and (self.is_loopback or self.anonymous or self.tls_client_ca is not None)

    @property
    def limits(self) -> Limits:
        return Limits(
            body_bytes=self.max_body_mib * _MIB,
            bodies_bytes=max(self.max_bodies_mib, self.max_body_mib) * _MIB,
            connections=self.max_connections,
        )

    @property
    def loading(self) -> Loading:
        pool = PoolSettings(
            threads=self.threads or threads_wanted() or 1,
            latency_budget_s=self.latency_budget_ms / 1e3,
            timeout_s=self.timeout_s,
            max_inflight=self.max_inflight,
            drain_s=self.drain_s,
        )
        workers = self.workers or max(1, min(8, usable_cores() // pool.threads))
        memory_bytes = None if self.memory_mib is None else self.memory_mib * _MIB
        return Loading(workers, pool, memory_bytes, self.on_demand)


def read_settings(
    arguments: Mapping[str, Any], environment: Mapping[str, str], contract: Contract | None = None
) -> ServerSettings:
    """The settings that all sources together give.

    Args:
        arguments: By field; None where the command line does not say.

    Raises:
        ConfigError: a variable or value that makes no sense; the message names it.
    """
    given = dict(contract.settings) if contract is not None else {}
    origins = dict.fromkeys(given, "the cloud's contract")
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or not text:
            continue
        field = variable.removeprefix(PREFIX).lower()
        if field not in ServerSettings.model_fields:
            known = ", ".join(PREFIX + name.upper() for name in ServerSettings.model_fields)
            raise ConfigError(f"The environment variable {variable!r} sets nothing. Known are {known}.")
        given[field], origins[field] = text, f"the environment variable {variable}"
    for field, value in arguments.items():
        if value is not None:
            given[field], origins[field] = value, f"--{field.replace('_', '-')}"
    try:
        return ServerSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = str(first["loc"][0])
        raise ConfigError(f"{origins.get(field, field)}: {first['msg']}. Correct the value.") from None
