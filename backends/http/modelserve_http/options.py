"""What the HTTP backend can be told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from modelserve.backend import Options


class HttpOptions(Options):
    """Options of a target that is a server."""

    url: str = Field("", description="Address of the server, such as 'https://models.example:8000'.")
    key: str = Field("", description="The key that it asks for, as a reference: '${MODELSERVE_KEY}'.", repr=False)
    folder: Path | None = Field(
        None,
        description="The server's folder of models, where this program can write to it: new models are put there.",
    )
    ca: Path | None = Field(None, description="Authority that certified the server, PEM. Default: the well-known ones.")
    certificate: Path | None = Field(None, description="Certificate to show to the server, PEM, key included.")
    connections: int = Field(64, ge=1, le=4096, description="Connections to the server at once. Default: 64.")
    timeout_s: float = Field(60.0, gt=0, description="Longest time for an answer, in seconds. Default: 60.")
    max_body_mib: int = Field(
        128, ge=1, description="Largest request in MiB; larger ones are split where rows allow. Default: 128."
    )
