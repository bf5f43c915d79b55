"""The contract between modelserve and a place that runs models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modelserve.backend import oip
from modelserve.backend.contract import (
    CONTRACT_VERSION,
    Backend,
    Capability,
    Endpoint,
    Limits,
    Reply,
    ReplyFuture,
    Request,
    Servable,
    Support,
)
from modelserve.backend.discovery import load_backend, open_backend
from modelserve.backend.jobs import Job, JobState, JobStatus, NothingToDo, WorkPart
from modelserve.backend.preflight import Finding, Verdict
from modelserve.backend.rehearsal import Rehearsal
from modelserve.backend.spec import DeploymentSpec, EndpointStatus, ReplicaStatus, Scale, State
from modelserve.backend.translate import ErrorTable, raising_ours, translated

if TYPE_CHECKING:
    from modelserve.backend.options import Options, read_options

__all__ = [
    "CONTRACT_VERSION",
    "Backend",
    "Capability",
    "DeploymentSpec",
    "Endpoint",
    "EndpointStatus",
    "ErrorTable",
    "Finding",
    "Job",
    "JobState",
    "JobStatus",
    "Limits",
    "NothingToDo",
    "Options",
    "Rehearsal",
    "ReplicaStatus",
    "Reply",
    "ReplyFuture",
    "Request",
    "Scale",
    "Servable",
    "State",
    "Support",
    "Verdict",
    "WorkPart",
    "load_backend",
    "oip",
    "open_backend",
    "raising_ours",
    "read_options",
    "translated",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # Only backends need these, and they bring pydantic, which takes longer to import than all of this together.
        if name not in {"Options", "read_options"}:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(".options", __name__), name)
