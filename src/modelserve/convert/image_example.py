"""An example of images, read as a source may take what they become: channels first, or last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from modelserve.convert.images import LAYOUTS, ImageInput, prepared
from modelserve.convert.routes import Images
from modelserve.errors import InputError
from modelserve.tensors import Array

_ROWS = 4
#: Frameworks whose networks take channels last.
_CHANNELS_LAST = {"keras", "tensorflow", "tf_keras"}


def readings(source: Any, example: Any, inputs: Any) -> Iterator[tuple[Any, list[Images]]]:
    """The example as the source takes it, with the images that go with it; the likelier layout first.

    Args:
        example: uint8 of shape (rows, height, width, channels), or a dict by input name with such in it; None has
            images made up, where they are all that the model takes.
        inputs: An `ImageInput`, or a dict of them by input name.

    Raises:
        InputError: these are no images, or no description of any.
    """
    described = dict(inputs) if isinstance(inputs, Mapping) else {None: inputs}
    for image in described.values():
        if not isinstance(image, ImageInput):
            raise InputError(f"inputs= takes an ImageInput, or a dict of them by input name, got {image!r}.")
    images = {name: _images(name, image, example) for name, image in described.items()}
    for layout in _layouts(source):
        if any(image.layout not in {None, layout} for image in described.values()):
            continue
        told = {name: replace(image, layout=layout) for name, image in described.items()}
        ready = {name: prepared(told[name], images[name], layout) for name in told}
        given = ready.get(None, {**_others(example), **ready})
        yield given, [Images(name, told[name], images[name]) for name in told]


def _layouts(source: Any) -> tuple[str, ...]:
    roots = {kind.__module__.partition(".")[0] for kind in type(source).__mro__}
    return LAYOUTS[::-1] if roots & _CHANNELS_LAST else LAYOUTS


def _others(example: Any) -> Mapping[Any, Any]:
    return example if isinstance(example, Mapping) else {}


def _images(name: str | None, image: ImageInput, example: Any) -> Array:
    if example is None:
        return made_up_images(image)
    if name is not None and not (isinstance(example, Mapping) and name in example):
        raise InputError(f"With inputs={{{name!r}: ...}} the example is a dict with {name!r} in it.")
    return as_images(example if name is None else example[name])


def made_up_images(image: ImageInput, channels: int = 3) -> Array:
    """Images somewhat larger than what the model takes, always the same: uint8 (4, height, width, channels)."""
    height, width = image.height_width
    size = (_ROWS, height + height // 4 + 1, width + width // 8 + 1, channels)
    return np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)


def as_images(given: Any) -> Array:
    """What the caller has as images: uint8 of shape (rows, height, width, channels).

    Raises:
        InputError: it is something else.
    """
    try:
        array = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise InputError(f"The example's images must be of one size, to be one array ({error}).") from error
    array = array[np.newaxis] if array.ndim == 3 else array
    if array.dtype != np.uint8 or array.ndim != 4 or not array.size or array.shape[3] not in (1, 3, 4):
        raise InputError(
            f"With ImageInput the example is images as they are decoded, uint8 of shape (rows, height, width, "
            f"channels); got {array.dtype} of shape {array.shape}."
        )
    return np.ascontiguousarray(array)
