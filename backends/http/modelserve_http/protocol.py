"""What a server says: a reply out of an answer, a signature out of metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from modelserve.backend import Reply, oip
from modelserve.bundle.manifest import signature_from_json
from modelserve.errors import SignatureError, WireError
from modelserve.tensors import OIP_DATATYPES, Signature, TensorSpec

_DTYPES = {oip: name for name, oip in OIP_DATATYPES.items()}


def reply(answer: httpx.Response) -> Reply:
    """The reply in an answer.

    Raises:
        WireError: its header is longer than the whole.
    """
    return oip.reply(answer.content, answer.headers.get(oip.HEADER_LENGTH))


def signature(metadata: Mapping[str, Any]) -> Signature:
    """What a model takes and gives, by its metadata; our own servers add what the protocol has no words for.

    Raises:
        WireError: it is no metadata.
    """
    try:
        parameters = metadata.get("parameters") or {}
        if isinstance(parameters.get("signature"), dict):
            return signature_from_json(parameters["signature"])
        inputs = tuple(_spec(entry) for entry in metadata["inputs"])
        return Signature(inputs, tuple(_spec(entry) for entry in metadata["outputs"]))
    except (KeyError, TypeError, AttributeError, SignatureError) as error:
        raise WireError(f"The server's metadata do not describe a model ({error!r}).") from error


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    shape = [int(size) for size in entry["shape"]]
    named = ["batch" if axis == 0 else f"{entry['name']}_{axis}" for axis in range(len(shape))]
    axes = tuple(name if size < 0 else size for name, size in zip(named, shape, strict=True))
    return TensorSpec(entry["name"], _DTYPES.get(entry["datatype"], entry["datatype"]), axes)
