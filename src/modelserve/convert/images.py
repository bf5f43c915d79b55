"""Images as a decoder gives them: how they become what a network takes, said once, and computed plainly in numpy.

    uint8 (rows, any height, any width, channels) ──resize, crop──► size ──(x * scale - mean) / std──► layout

`image_graph` builds the same into a model's graph, and is held against what is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelserve.errors import InputError
from modelserve.tensors import Array

INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
LAYOUTS = ("NCHW", "NHWC")
_CUBIC = -0.5


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Images of any size, uint8 of shape (batch, height, width, channels), red first, as the input of a model.

    Resizing is Pillow's: pixel centres at halves, a filter that widens when the image shrinks (antialias), weights
    only of pixels that exist, each of the two passes rounded to whole steps of 255; which pass comes first, and with it
    a step now and then, differs by version.

    Args:
        size: What the model takes: a number for a square, or (height, width).
        mean: Taken off after scaling, of each channel or of all.
        std: What is divided by then, of each channel or of all.
        scale: What the pixels are multiplied with first.
        shorter_side: Resize so that the shorter side has this length, and cut `size` out of the centre; by default
            the whole image is resized to `size`, whatever its proportions.
        interpolation: "bilinear", "bicubic" or "nearest".
        channels: "RGB", or "BGR" for a model that takes blue first.
        layout: "NCHW" or "NHWC"; by default told from the model's own input.

    Raises:
        InputError: a value makes no sense.
    """

    size: int | tuple[int, int]
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    scale: float = 1 / 255
    shorter_side: int | None = None
    interpolation: str = "bilinear"
    channels: str = "RGB"
    layout: str | None = None

    def __post_init__(self) -> None:
        height, width = self.height_width
        known = {
            "size must be one or two whole numbers above 0": _is_whole(height) and _is_whole(width),
            "std must not hold 0": bool(np.all(np.asarray(self.std) != 0)),
            "mean, std and scale must be finite": bool(
                np.isfinite([*_flat(self.mean), *_flat(self.std), self.scale]).all()
            ),
            f"interpolation must be one of {', '.join(INTERPOLATIONS)}": self.interpolation in INTERPOLATIONS,
            "channels must be RGB or BGR": self.channels in {"RGB", "BGR"},
            f"layout must be one of {', '.join(LAYOUTS)}": self.layout in {None, *LAYOUTS},
            "shorter_side must be at least as long as the sides of size": self.shorter_side is None
            or (_is_whole(self.shorter_side) and self.shorter_side >= max(height, width)),
        }
        for wanted, holds in known.items():
            if not holds:
                raise InputError(f"ImageInput: {wanted}, got {self}.")

    @property
    def height_width(self) -> tuple[int, int]:
        """The size as two numbers."""
        size = self.size
        return (size[0], size[1]) if isinstance(size, tuple | list) and len(size) == 2 else (size, size)

    def factors(self, channels: int) -> tuple[Array, Array]:
        """By channel, in the model's own order of them: what a pixel is multiplied with, and what is added then.

        Raises:
            InputError: mean or std is given for another number of channels.
        """
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(_flat(values)) not in {1, channels}:
                raise InputError(f"ImageInput: {name} has {len(_flat(values))} values, the model {channels} channels.")
        mean, std = (np.broadcast_to(np.asarray(values, np.float64), channels) for values in (self.mean, self.std))
        return self.scale / std, 0.0 - mean / std

    def resized_to(self, height: int, width: int) -> tuple[int, int]:
        """The size that an image is resized to, before it is cut."""
        if self.shorter_side is None:
            return self.height_width
        shorter = min(height, width)
        return height * self.shorter_side // shorter, width * self.shorter_side // shorter

    def settings(self) -> Mapping[str, Any]:
        """All that changes what is computed, as plain JSON."""
        height, width = self.height_width
        return {
            "size": [height, width],
            "mean": _flat(self.mean),
            "std": _flat(self.std),
            "scale": self.scale,
            "shorter_side": self.shorter_side,
            "interpolation": self.interpolation,
            "channels": self.channels,
        }


def prepared(image: ImageInput, images: Array, layout: str) -> Array:
    """What a network takes of these images: float32 of shape (rows, ...) in `layout`.

    Args:
        images: uint8 of shape (rows, height, width, channels).
    """
    height, width = image.resized_to(*images.shape[1:3])
    resized = np.stack([_resized(one, height, width, image.interpolation) for one in images])
    wanted = image.height_width
    # Halves are rounded to even, as Python and torchvision do.
    top, left = (round((have - want) / 2) for have, want in zip((height, width), wanted, strict=True))
    cut = resized[:, top : top + wanted[0], left : left + wanted[1]]
    ordered = cut[..., ::-1] if image.channels == "BGR" else cut
    by, plus = image.factors(images.shape[3])
    normal = (ordered * by + plus).astype(np.float32)
    return np.ascontiguousarray(normal if layout == "NHWC" else normal.transpose(0, 3, 1, 2))


def _resized(image: Array, height: int, width: int, interpolation: str) -> Array:
    if interpolation == "nearest":
        rows, columns = (_nearest(*sizes) for sizes in ((image.shape[0], height), (image.shape[1], width)))
        return image[rows][:, columns]
    across = _steps(np.einsum("pw,hwc->hpc", _weights(image.shape[1], width, interpolation), image.astype(np.float64)))
    return _steps(np.einsum("oh,hpc->opc", _weights(image.shape[0], height, interpolation), across))


def _nearest(size: int, wanted: int) -> Array:
    return np.floor((np.arange(wanted) + 0.5) * size / wanted).astype(int)


def _steps(values: Array) -> Array:
    return np.clip(np.floor(values + 0.5), 0, 255)


def _weights(size: int, wanted: int, interpolation: str) -> Array:
    """How much of each of `size` pixels goes into each of `wanted`: (wanted, size), rows that add up to 1."""
    scale = size / wanted
    centres = (np.arange(wanted) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = _cubic(distance) if interpolation == "bicubic" else np.maximum(0.0, 1.0 - distance)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _cubic(distance: Array) -> Array:
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * _CUBIC - 4 * _CUBIC
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _flat(values: float | Sequence[float]) -> list[float]:
    return [float(value) for value in values] if isinstance(values, Sequence | np.ndarray) else [float(values)]
