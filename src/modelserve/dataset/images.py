"""Pictures as a decoder gives them: rows of bytes to arrays of (height, width, channels), by Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from modelserve.errors import MissingExtraError, SignatureError
from modelserve.tensors import Array, TensorSpec

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def are_pictures(kind: Any) -> bool:
    """Whether a column holds encoded pictures: bytes, or a struct of bytes and a path."""
    if pa.types.is_struct(kind):
        return any(kind.field(index).name == "bytes" for index in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def decoded(column: Any, spec: TensorSpec) -> list[Array]:
    """Each picture in the input's channels, as uint8.

    Raises:
        SignatureError: one of them is no picture, or the input takes none.
    """
    mode = _mode(spec)
    contents = column.field("bytes") if pa.types.is_struct(column.type) else column
    return [_decoded(content, mode) for content in contents.to_pylist()]


def _mode(spec: TensorSpec) -> str:
    channels = spec.shape[3] if len(spec.shape) == 4 else 0
    mode = _MODES.get(channels) if isinstance(channels, int) and spec.dtype == "uint8" else None
    if mode is None:
        raise SignatureError(
            f"Input {spec.name!r} is {spec}; pictures are decoded to uint8[batch, height, width, channels]. Convert "
            "the model with inputs=ImageInput(...), so that it takes pictures as a decoder gives them."
        )
    return mode


def check_takes_pictures(spec: TensorSpec) -> None:
    """Refuse a model whose input is not made of pictures, before any is read.

    Raises:
        SignatureError, MissingExtraError: it does not take them, or Pillow is not installed.
    """
    _mode(spec)
    _opener()


def _decoded(content: bytes | None, mode: str) -> Array:
    if content is None:
        raise SignatureError("There is no picture here.")
    try:
        with _opener()(io.BytesIO(content)) as picture:
            array: Array = np.asarray(picture if picture.mode == mode else picture.convert(mode))
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        raise SignatureError(f"The picture cannot be decoded: {error}.") from error
    return array if array.ndim == 3 else array[..., np.newaxis]


@lru_cache(maxsize=1)
def _opener() -> Callable[[Any], Any]:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError(
            "Decoding pictures needs the package pillow, which is not installed. Install it with: "
            'pip install "modelserve[dataset]"'
        ) from error
    return Image.open
