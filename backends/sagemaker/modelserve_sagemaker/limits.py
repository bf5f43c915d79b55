"""SageMaker's figures, each with where it is written.

Payloads and times: https://docs.aws.amazon.com/sagemaker/latest/dg/realtime-endpoints.html, serverless-endpoints.html,
async-inference.html, and the Hosting FAQ; jobs: APIReference/API_CreateTransformJob.html; container contract:
your-algorithms-inference-code.html.
"""

from __future__ import annotations

import re

from modelserve.backend import Limits
from modelserve_sagemaker.options import Mode, SageMakerOptions

MIB = 1 << 20
#: Largest request by mode. botocore's model still says 6 MiB for real-time; the Hosting FAQ says 25 MB.
REQUEST_BYTES = {Mode.REAL_TIME: 25_000_000, Mode.SERVERLESS: 4 * MIB, Mode.ASYNCHRONOUS: 1_000_000_000}
#: Longest time for an answer by mode.
TIMEOUT_S = {Mode.REAL_TIME: 60.0, Mode.SERVERLESS: 60.0, Mode.ASYNCHRONOUS: 3600.0}
#: A job's requests: what those under way at a machine may hold together, and the longest line that the runtime reads.
_TRANSFORMS_MB = 100
_MOST_TRANSFORMS = 4
LONGEST_ROW_BYTES = 16 * MIB
#: The client gives up a little later than SageMaker does, so that it hears SageMaker's own word.
SOCKET_GRACE_S = 10.0
SERVERLESS_STARTUP_S = 180
#: Measured with a small model (Pss of all processes): 78 MiB with one worker, 97 MiB with four. Rounded up, since this
#: is to refuse what cannot fit, and not to promise what does.
_RUNTIME_MIB = 100
_WORKER_MIB = 25
#: The weights are in memory once; half as much again is a guess at what the runs themselves need.
_SHARE_OF_WEIGHTS = 1.5

#: Memory in GiB of a family's `large`, which doubles with each size; for checks of the order of magnitude only.
_GIB_OF_LARGE = {"c": 4, "m": 8, "r": 16}
#: From this generation on a `large` has two processors, and each size twice as many as the one before.
_REGULAR_SINCE = 5
_SIZES = {"medium": 0.5, "large": 1, "xlarge": 2}
_TYPE = re.compile(r"ml\.(?P<family>[a-z]+)(?P<generation>\d+)(?P<traits>[a-z-]*)\.(?P<size>\d*)(?P<word>[a-z]+)")


def limits_of(options: SageMakerOptions) -> Limits:
    """What one request may be."""
    return Limits(request_bytes=REQUEST_BYTES[options.mode], timeout_s=TIMEOUT_S[options.mode], parallel=8)


def processors(instance_type: str) -> int | None:
    """How many a machine has; None where it is not known here."""
    found = _TYPE.fullmatch(instance_type)
    if not found or found["family"] not in _GIB_OF_LARGE or int(found["generation"]) < _REGULAR_SINCE:
        return None
    return None if found["word"] not in _SIZES else int(2 * _times(found))


def transforms_at_once(payload_mb: int) -> int:
    """How many requests of a job may be under way at a machine."""
    return max(1, min(_MOST_TRANSFORMS, _TRANSFORMS_MB // payload_mb))


def architecture(instance_type: str) -> str:
    """amd64 or arm64, of the processors that a machine has."""
    found = _TYPE.fullmatch(instance_type)
    return "arm64" if found and found["family"] in {"c", "m", "r", "x", "t"} and "g" in found["traits"] else "amd64"


def has_accelerator(instance_type: str) -> bool:
    """Whether it is a machine with a GPU or another accelerator, which this image does not use."""
    found = _TYPE.fullmatch(instance_type)
    return found is not None and found["family"] in {"g", "p", "inf", "trn"}


def memory_mib(options: SageMakerOptions) -> int | None:
    """Memory of one replica; None where it is not known here."""
    if options.is_serverless:
        return options.memory_mb
    found = _TYPE.fullmatch(options.instance_type)
    if not found or found["family"] not in _GIB_OF_LARGE or found["word"] not in _SIZES:
        return None
    return int(_GIB_OF_LARGE[found["family"]] * _times(found) * 1024)


def needed_mib(model_bytes: int, workers: int) -> int:
    """Memory that a model takes: one copy of its weights, and what each worker has of its own."""
    return _RUNTIME_MIB + workers * _WORKER_MIB + int(_SHARE_OF_WEIGHTS * model_bytes / MIB)


def _times(found: re.Match[str]) -> float:
    """How many times the `large` of its family a machine is."""
    return _SIZES[found["word"]] * (int(found["size"]) if found["size"] else 1)
