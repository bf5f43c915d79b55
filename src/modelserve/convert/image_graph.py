"""The graph of images' preprocessing: what `images.prepared` computes, as nodes.

uint8 (batch, height, width, channels) ──Transpose──Resize──(Slice)──Cast──Mul──Add──► what the model takes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from modelserve.convert.graph import element_type
from modelserve.convert.images import ImageInput
from modelserve.tensors import Array, TensorSpec

# The first opset whose Resize has an antialias and takes the axes.
OPSET = 18
_ORDERS = {"NCHW": [0, 1, 2, 3], "NHWC": [0, 2, 3, 1]}
_MODES = {"bilinear": "linear", "bicubic": "cubic", "nearest": "nearest"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where images enter a draft."""

    image: ImageInput
    spec: TensorSpec
    layout: str
    channels: int

    @property
    def images(self) -> TensorSpec:
        return TensorSpec(self.spec.name, "uint8", (self.spec.shape[0], "height", "width", self.channels))


def preprocessing(place: Place, prefix: str, ir_version: int) -> ModelProto:
    """The graph from images to what the model takes.

    Args:
        prefix: What the names of its inner values start with; its output is called `{prefix}ready`.
    """
    image, name = place.image, place.spec.name
    by, plus = (np.asarray(factor, np.float32).reshape(1, -1, 1, 1) for factor in image.factors(place.channels))
    sizing, cut, weights = _sizing(image, prefix)
    weights |= {"by": by, "plus": plus}
    turn, ordered = _turning(place, prefix, weights)
    make = helper.make_node
    nodes = [
        make("Transpose", [name], [f"{prefix}first"], perm=[0, 3, 1, 2]),
        *sizing,
        # All four sizes, and not two with their axes: behind a Transpose onnxruntime 1.32 mistakes these.
        make("Shape", [f"{prefix}first"], [f"{prefix}rows"], end=2),
        make("Concat", [f"{prefix}rows", f"{prefix}target"], [f"{prefix}sizes"], axis=0),
        _resize(image, prefix),
        *cut,
        *turn,
        make("Cast", [ordered], [f"{prefix}float"], to=TensorProto.FLOAT),
        make("Mul", [f"{prefix}float", f"{prefix}by"], [f"{prefix}scaled"]),
        make("Add", [f"{prefix}scaled", f"{prefix}plus"], [f"{prefix}normal"]),
        make("Cast", [f"{prefix}normal"], [f"{prefix}typed"], to=element_type(place.spec.dtype)),
        make("Transpose", [f"{prefix}typed"], [f"{prefix}ready"], perm=_ORDERS[place.layout]),
    ]
    graph = helper.make_graph(
        nodes,
        "preprocessing",
        [helper.make_tensor_value_info(name, TensorProto.UINT8, list(place.images.shape))],
        [helper.make_tensor_value_info(f"{prefix}ready", element_type(place.spec.dtype), list(_shape(place)))],
        [numpy_helper.from_array(array, f"{prefix}{key}") for key, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=ir_version)


def _turning(place: Place, prefix: str, weights: dict[str, Array]) -> tuple[list[Any], str]:
    """The nodes that put blue first, where the model wants it so, and the name of what comes out."""
    if place.image.channels == "RGB":
        return [], f"{prefix}cut"
    weights["order"] = np.arange(place.channels)[::-1].copy()
    node = helper.make_node("Gather", [f"{prefix}cut", f"{prefix}order"], [f"{prefix}ordered"], axis=1)
    return [node], f"{prefix}ordered"


def _shape(place: Place) -> Sequence[int | str]:
    height, width = place.image.height_width
    sizes: dict[str, int | str] = {"N": place.spec.shape[0], "C": place.channels, "H": height, "W": width}
    return [sizes[axis] for axis in place.layout]


def _resize(image: ImageInput, prefix: str) -> Any:
    attributes: dict[str, Any] = {"mode": _MODES[image.interpolation], "coordinate_transformation_mode": "half_pixel"}
    if image.interpolation == "nearest":
        attributes["nearest_mode"] = "round_prefer_ceil"
    else:
        attributes |= {"antialias": 1, "exclude_outside": 1, "cubic_coeff_a": -0.5}
    inputs = [f"{prefix}first", "", "", f"{prefix}sizes"]
    return helper.make_node("Resize", inputs, [f"{prefix}resized"], **attributes)


def _sizing(image: ImageInput, prefix: str) -> tuple[list[Any], list[Any], dict[str, Array]]:
    """The nodes before the resizing, those after it, and their constants."""
    size = np.array(image.height_width)
    if image.shorter_side is None:
        return [], [helper.make_node("Identity", [f"{prefix}resized"], [f"{prefix}cut"])], {"target": size}
    make = helper.make_node
    before = [
        make("Shape", [f"{prefix}first"], [f"{prefix}sides"], start=2, end=4),
        make("ReduceMin", [f"{prefix}sides"], [f"{prefix}shorter"], keepdims=1),
        make("Mul", [f"{prefix}sides", f"{prefix}length"], [f"{prefix}longer"]),
        make("Div", [f"{prefix}longer", f"{prefix}shorter"], [f"{prefix}target"]),
    ]
    after = [
        make("Sub", [f"{prefix}target", f"{prefix}size"], [f"{prefix}rest"]),
        make("Cast", [f"{prefix}rest"], [f"{prefix}rest_float"], to=TensorProto.DOUBLE),
        make("Mul", [f"{prefix}rest_float", f"{prefix}half"], [f"{prefix}margin"]),
        make("Round", [f"{prefix}margin"], [f"{prefix}margin_rounded"]),
        make("Cast", [f"{prefix}margin_rounded"], [f"{prefix}from"], to=TensorProto.INT64),
        make("Add", [f"{prefix}from", f"{prefix}size"], [f"{prefix}to"]),
        make("Slice", [f"{prefix}resized", f"{prefix}from", f"{prefix}to", f"{prefix}axes"], [f"{prefix}cut"]),
    ]
    length, half, axes = np.array([image.shorter_side]), np.array([0.5]), np.array([2, 3])
    return before, after, {"length": length, "size": size, "half": half, "axes": axes}
