"""The contract between modelserve and a place that runs models."""

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
from modelserve.backend.options import Options, read_options
from modelserve.backend.spec import DeploymentSpec, EndpointStatus, ReplicaStatus, Scale, State
from modelserve.backend.translate import ErrorTable, raising_ours, translated

__all__ = [
    "CONTRACT_VERSION",
    "Backend",
    "Capability",
    "DeploymentSpec",
    "Endpoint",
    "EndpointStatus",
    "ErrorTable",
    "Limits",
    "Options",
    "ReplicaStatus",
    "Reply",
    "ReplyFuture",
    "Request",
    "Scale",
    "Servable",
    "State",
    "Support",
    "load_backend",
    "open_backend",
    "raising_ours",
    "read_options",
    "translated",
]
