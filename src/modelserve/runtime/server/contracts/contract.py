"""One cloud's contract with a container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Contract:
    """What a cloud's front door does with the container behind it.

    Attributes:
        settings: By field of `ServerSettings`; the environment and the command line may say otherwise.
        ready_paths: Asked whether requests should be sent (GET; 200 or 503).
        live_paths: Asked whether the process lives.
        predict_paths: Where requests arrive. Open, as the paths above: the cloud's door has asked who calls.
        storage_uri: Where the model is to be fetched from before it is loaded; empty where it lies in the container.
        request_id_header: The header by which this cloud names a request.
    """

    name: str
    settings: Mapping[str, Any]
    ready_paths: tuple[str, ...]
    predict_paths: tuple[str, ...]
    live_paths: tuple[str, ...] = ()
    storage_uri: str = ""
    request_id_header: bytes = b"x-request-id"
    details: Mapping[str, Any] = field(default_factory=dict)
