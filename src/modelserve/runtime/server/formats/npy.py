"""numpy's own format, `application/x-npy`: one array in, the primary output's array out. Never a pickle."""

from __future__ import annotations

import io
import math
import tokenize
from typing import Any

import numpy as np

from modelserve.errors import WireError
from modelserve.runtime.server.formats.question import Described, Question, question
from modelserve.runtime.server.http.messages import Response
from modelserve.tensors import Array

NPY = b"application/x-npy"
_HEADER_BYTES = 4096
# numpy reads a header as a Python literal, an old one after a look at its words.
_NOT_A_HEADER = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError)


def read(body: bytes | memoryview, model: Described) -> Question[Response]:
    """The question in one array, for a model of one input.

    Raises:
        WireError, SignatureError: it is none, or does not fit the model.
    """
    return question(model.signature.check(array_from_npy(body)), (), write)


def write(arrays: dict[str, Array]) -> Response:
    """The primary output's array."""
    (array,) = arrays.values()
    content = io.BytesIO()
    # Text as numpy's own: as objects it could only be pickled.
    np.lib.format.write_array(content, array.astype(str) if array.dtype.kind == "O" else array, allow_pickle=False)
    return Response(content.getvalue(), NPY)


def array_from_npy(body: bytes | memoryview) -> Array:
    """The array in the bytes of a .npy file, as a view of them.

    Raises:
        WireError: they are none, hold objects, or are not as long as their header says.
    """
    file = io.BytesIO(bytes(body[: _HEADER_BYTES + 16]))
    try:
        shape, fortran, dtype = _header(file)
    except _NOT_A_HEADER as error:
        raise WireError(f"The body is not an array in numpy's format: {str(error)[:200]}.") from error
    if dtype.hasobject or dtype.kind not in "biufU" or dtype.itemsize == 0:
        raise WireError(f"The array holds {dtype}, which is read from nobody. Send numbers or text.")
    content = memoryview(body)[file.tell() :]
    wanted = math.prod(shape) * dtype.itemsize
    if any(size < 0 for size in shape) or wanted != len(content):
        raise WireError(
            f"The array of {dtype} and shape {shape} takes {wanted} bytes, {len(content)} follow its header."
        )
    array: Array = np.frombuffer(content, dtype)
    if dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise WireError("The array of bool holds bytes other than 0 and 1.")
    return array.reshape(shape, order="F" if fortran else "C")


def _header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the format")
    return readers[version](file, max_header_size=_HEADER_BYTES)
