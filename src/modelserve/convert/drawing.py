"""A piece of a graph in the making: nodes, weights, and the table of numbers that most pieces begin with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from modelserve.errors import ConversionError
from modelserve.tensors import Array

if TYPE_CHECKING:
    from onnx import NodeProto


class Part(NamedTuple):
    """Some columns of the input: a value of the graph, (rows, width)."""

    name: str
    width: int
    is_text: bool = False


@dataclass(slots=True)
class Drawing:
    """Nodes and weights for a graph, and the names of the values that answer."""

    prefix: str
    nodes: list[NodeProto] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)

    def add(self, kind: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> str:
        """Append a node of one output, whose name is returned."""
        return self.add_as(kind, inputs, f"{self.prefix}{kind}_{len(self.nodes)}", domain, **attributes)

    def add_as(self, kind: str, inputs: Sequence[str], name: str, domain: str = "", **attributes: Any) -> str:
        """Append a node whose output has a name already."""
        self.nodes.append(helper.make_node(kind, list(inputs), [name], domain=domain, name=name, **attributes))
        return name

    def add_both(self, kind: str, inputs: Sequence[str], names: Sequence[str], **attributes: Any) -> None:
        """Append a node of several outputs."""
        self.nodes.append(helper.make_node(kind, list(inputs), list(names), name=names[0], **attributes))

    def flat(self, value: str) -> str:
        """A value of one column, (rows, 1), as (rows,)."""
        return self.add("Reshape", [value, self.weight(np.array([-1], np.int64))])

    def numbers(self, *values: float) -> str:
        """Weights of float32, (values,)."""
        return self.weight(np.array(values, np.float32))

    def row(self, values: Array, double: bool) -> str:
        """Weights of float64 or float32, in the shape of `values`."""
        return self.weight(np.asarray(values).astype(np.float64 if double else np.float32))

    def like(self, number: float, value: str) -> str:
        """A number in the dtype of a value."""
        return self.add("CastLike", [self.numbers(number), value])

    def weight(self, value: Array) -> str:
        name = f"{self.prefix}weight_{len(self.weights)}"
        self.weights[name] = value
        return name


def gather(
    parts: Sequence[Part], drawing: Drawing, *, double: bool, codes: Mapping[int, Sequence[Any]] | None = None
) -> str:
    """All parts as one table of float64 or float32 numbers, (rows, features).

    Raises:
        ConversionError: text without `codes` for its column.
    """
    to = TensorProto.DOUBLE if double else TensorProto.FLOAT
    tables, position = [], 0
    for part in parts:
        known = (codes or {}).get(position) if part.width == 1 else None
        if part.is_text and known is None:
            raise ConversionError(f"The model takes numbers, and {part.name!r} is text.")
        name = part.name if known is None else _encode(part, known, drawing)
        tables.append(drawing.add("Cast", [name], to=to))
        position += part.width
    return tables[0] if len(tables) == 1 else drawing.add("Concat", tables, axis=1)


def initializers(drawing: Drawing) -> Iterator[TensorProto]:
    """The drawing's weights as tensors."""
    for name, value in drawing.weights.items():
        if value.dtype.kind == "O":
            texts = [str(item).encode() for item in value]
            # onnx's own annotation leaves text out.
            yield helper.make_tensor(name, TensorProto.STRING, list(value.shape), texts)  # type: ignore[arg-type]
        else:
            yield numpy_helper.from_array(value, name)


def _encode(part: Part, known: Sequence[Any], drawing: Drawing) -> str:
    """A column of categories as their numbers, float32; unknown ones are NaN."""
    numbers = {"values_floats": [float(index) for index in range(len(known))], "default_float": float("nan")}
    if part.is_text:
        texts = [str(value).encode() for value in known]
        return drawing.add("LabelEncoder", [part.name], "ai.onnx.ml", keys_strings=texts, **numbers)
    column = drawing.add("Cast", [part.name], to=TensorProto.FLOAT)
    return drawing.add("LabelEncoder", [column], "ai.onnx.ml", keys_floats=[float(value) for value in known], **numbers)
