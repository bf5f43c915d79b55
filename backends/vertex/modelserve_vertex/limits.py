"""What one request may be, by the kind of endpoint: documented, and kept by the stand-in as by the cloud.

https://cloud.google.com/vertex-ai/docs/predictions/choose-endpoint-type
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelserve.errors import ConfigError
from modelserve_vertex.options import EndpointKind

_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class KindLimits:
    """Limits of one kind of endpoint.

    Attributes:
        payload_bytes: Largest request, and largest answer.
        timeout_s: Longest time for an answer.
        timeout_is_fixed: Whether no `inference_timeout` can change it.
        models: Most deployed models at once.
        streams: Whether answers may stream.
        requests_per_minute: Default quota of the project in the region; None where there is none.
    """

    payload_bytes: int
    timeout_s: float
    timeout_is_fixed: bool
    models: int | None = None
    streams: bool = False
    requests_per_minute: int | None = None


KIND_LIMITS: Mapping[EndpointKind, KindLimits] = {
    EndpointKind.SHARED: KindLimits(1_500_000, 60.0, True, requests_per_minute=30_000),
    EndpointKind.DEDICATED: KindLimits(10 * _MB, 3600.0, False, streams=True),
    EndpointKind.PRIVATE_SERVICE_CONNECT: KindLimits(10 * _MB, 3600.0, False, streams=True),
    EndpointKind.PRIVATE: KindLimits(10 * _MB, 60.0, True, models=1),
}

#: Most of a streamed answer that is taken into memory: ours, since Google states none for it.
STREAMED_BYTES = 1 << 30

#: Scale metrics of Vertex AI.
CPU_UTILIZATION = "aiplatform.googleapis.com/prediction/online/cpu/utilization"
DUTY_CYCLE = "aiplatform.googleapis.com/prediction/online/accelerator/duty_cycle"
REQUEST_COUNT = "aiplatform.googleapis.com/prediction/online/request_count"
METRICS = frozenset({CPU_UTILIZATION, DUTY_CYCLE, REQUEST_COUNT})

#: Families whose machines bring their accelerators, and those to which some can be attached.
WITH_ACCELERATORS = ("a2-", "a3-", "a4-", "g2-", "g4-")
ATTACHABLE = ("n1-",)
CPU_ONLY = ("e2-", "n2-", "n2d-", "n4-", "c2-", "c2d-", "c3-", "c4-", "m1-")
FAMILIES = (*WITH_ACCELERATORS, *ATTACHABLE, *CPU_ONLY)
#: Refused by the service although its family is known.
REFUSED_MACHINES = frozenset({"n1-standard-1", "n1-highmem-1", "n1-highcpu-1"})

#: Of what batch prediction reads and writes.
BATCH_REQUEST_BYTES = 1_000_000  # a request of the service to a container; undocumented, below an endpoint's least
BATCH_ROWS = 256  # rows that the runtime answers at once
BATCH_FORMATS = frozenset({"jsonl", "csv", "tf-record", "tf-record-gzip", "bigquery", "file-list"})

LONGEST_DEPLOY_S = 7200
LONGEST_TIMEOUT_S = 3600
DISPLAY_NAME_LETTERS = 128
LABELS = 64
LABEL_LETTERS = 63


def require_streams(kind: EndpointKind) -> None:
    """Refuse answers in pieces where the kind of endpoint gives none.

    Raises:
        ConfigError: it gives none.
    """
    if not KIND_LIMITS[kind].streams:
        able = " or ".join(repr(one.value) for one, limits in KIND_LIMITS.items() if limits.streams)
        raise ConfigError(
            f"streamed_answers asks for answers in pieces, and an endpoint of kind {kind.value!r} gives none. "
            f"Use endpoint = {able}, or leave streamed_answers out."
        )
