"""The models of the benchmarks, made of random weights without any framework; the forest is trained in a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from modelserve.bundle import Bundle, Origin, Step, write
from modelserve.session import load
from modelserve.tensors import Array, Signature, TensorSpec

SESSION: Any = None


def start_worker(path: str) -> None:
    """In a worker of one of Python's own pools: load the model once."""
    global SESSION  # what a pool's initialiser has for its workers
    SESSION = load(Path(path))


def run(name: str, rows: Array) -> Array:
    """In such a worker: one answer."""
    answer: Array = SESSION.run(None, {name: rows})[0]
    return answer


def race(name: str, rows: Array, start: float, seconds: float) -> tuple[int, float]:
    """In such a worker: from the moment `start` on, the same request again and again, at least once.

    Returns:
        How many there were, and the seconds that they took.
    """
    while time.time() < start:
        pass
    count = 0
    while count == 0 or time.time() - start < seconds:
        SESSION.run(None, {name: rows})
        count += 1
    return count, time.time() - start


Made = tuple[Bundle, Array, Array]
_RANDOM = np.random.default_rng(0)


class _Graph:
    """Nodes and weights, added one by one."""

    def __init__(self) -> None:
        self.nodes: list = []
        self.weights: list = []

    def weight(self, *shape: int, scale: float | None = None, value: Array | None = None) -> str:
        name = f"weight_{len(self.weights)}"
        array = (
            value if value is not None else _RANDOM.normal(size=shape).astype(np.float32) * (scale or shape[0] ** -0.5)
        )
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, kind: str, *inputs: str, name: str | None = None, **settings: object) -> str:
        output = name or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **settings))
        return output

    def dense(self, x: str, width: int, out: int, *, name: str | None = None) -> str:
        return self.add("Add", self.add("MatMul", x, self.weight(width, out)), self.weight(out), name=name)

    def bundle(self, kind: str, spec: TensorSpec, output: TensorSpec, example: Array) -> Bundle:
        def value(one: TensorSpec) -> object:
            return helper.make_tensor_value_info(
                one.name, helper.np_dtype_to_tensor_dtype(np.dtype(one.dtype)), list(one.shape)
            )

        graph = helper.make_graph(self.nodes, kind, [value(spec)], [value(output)], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        return write(
            model,
            signature=Signature((spec,), (output,)),
            origin=Origin("benchmark", kind),
            lineage=(Step("make", {"kind": kind}),),
            example={spec.name: example},
            rows_independent=True,
        )


def tiny() -> Made:
    """64 floats to 10 classes: a logistic regression."""
    graph = _Graph()
    graph.add("Softmax", graph.dense("x", 64, 10), name="y")
    return _finish(graph, "tiny", 64, 10, rows=100_000)


def mlp() -> Made:
    """64-128-64-10."""
    graph = _Graph()
    hidden = graph.add("Relu", graph.dense("x", 64, 128))
    hidden = graph.add("Relu", graph.dense(hidden, 128, 64))
    graph.add("Softmax", graph.dense(hidden, 64, 10), name="y")
    return _finish(graph, "mlp", 64, 10, rows=50_000)


def transformer(
    layers: int = 6, width: int = 384, heads: int = 12, length: int = 64, kind: str = "transformer"
) -> Made:
    """An encoder over token ids, to two classes."""
    graph = _Graph()
    x = graph.add("Gather", graph.weight(30522 if kind == "transformer" else 2000, width, scale=0.05), "ids")
    for _ in range(layers):
        x = _layer(graph, x, width, heads, length)
    pooled = graph.add("ReduceMean", x, graph.weight(value=np.array([1])), keepdims=0)
    graph.dense(pooled, width, 2, name="y")
    ids = _RANDOM.integers(0, 2000, (32, length))
    spec, output = TensorSpec("ids", "int64", ("batch", length)), TensorSpec("y", "float32", ("batch", 2))
    return graph.bundle(kind, spec, output, ids[:1]), ids[:1], ids


def large() -> Made:
    """400 MB of weights."""
    return transformer(layers=14, width=768, heads=12, length=64, kind="large")


def image() -> Made:
    """Convolutions over 3x224x224 floats (600 KB a row), to 10 classes."""
    graph = _Graph()
    x, channels = "x", 3
    for out, stride in ((16, 2), (24, 2), (32, 2), (64, 2), (96, 1)):
        kernel = graph.weight(out, channels, 3, 3, scale=(channels * 9) ** -0.5)
        x = graph.add("Relu", graph.add("Conv", x, kernel, strides=[stride, stride], pads=[1, 1, 1, 1]))
        channels = out
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    graph.dense(pooled, channels, 10, name="y")
    rows = _RANDOM.normal(size=(32, 3, 224, 224)).astype(np.float32)
    spec, output = TensorSpec("x", "float32", ("batch", 3, 224, 224)), TensorSpec("y", "float32", ("batch", 10))
    return graph.bundle("image", spec, output, rows[:1]), rows[:1], rows


def forest() -> Made:
    """A random forest of 800 deep trees on noisy data: about 100 MB as ONNX."""
    from sklearn.ensemble import RandomForestClassifier

    from modelserve.convert import convert

    x = _RANDOM.normal(size=(12_000, 16)).astype(np.float32)
    y = (x[:, 0] + _RANDOM.normal(size=len(x)) > 0).astype(int)
    bundle = convert(RandomForestClassifier(800, n_jobs=2, random_state=0).fit(x, y), x[:16])
    assert isinstance(bundle, Bundle)
    return bundle, x[:64], x


MODELS: dict[str, Callable[[], Made]] = {
    "tiny": tiny,
    "mlp": mlp,
    "transformer": transformer,
    "image": image,
    "large": large,
    "forest": forest,
}


def _finish(graph: _Graph, kind: str, features: int, classes: int, *, rows: int) -> Made:
    x = _RANDOM.normal(size=(rows, features)).astype(np.float32)
    spec = TensorSpec("x", "float32", ("batch", features))
    return graph.bundle(kind, spec, TensorSpec("y", "float32", ("batch", classes)), x[:8]), x[:1], x


def _layer(graph: _Graph, x: str, width: int, heads: int, length: int) -> str:
    shape: Sequence[int] = (0, length, heads, width // heads)
    target = graph.weight(value=np.array(shape))

    def head(axes: list[int]) -> str:
        return graph.add("Transpose", graph.add("Reshape", graph.dense(x, width, width), target), perm=axes)

    query, key, value = head([0, 2, 1, 3]), head([0, 2, 3, 1]), head([0, 2, 1, 3])
    scaled = graph.add("Mul", graph.add("MatMul", query, key), graph.weight(value=np.float32((width // heads) ** -0.5)))
    mixed = graph.add("Transpose", graph.add("MatMul", graph.add("Softmax", scaled), value), perm=[0, 2, 1, 3])
    joined = graph.add("Reshape", mixed, graph.weight(value=np.array([0, length, width])))
    x = _normalised(graph, graph.add("Add", x, graph.dense(joined, width, width)), width)
    hidden = graph.dense(x, width, 4 * width)
    active = graph.add("Mul", hidden, graph.add("Sigmoid", hidden))
    return _normalised(graph, graph.add("Add", x, graph.dense(active, 4 * width, width)), width)


def _normalised(graph: _Graph, x: str, width: int) -> str:
    one, zero = np.ones(width, np.float32), np.zeros(width, np.float32)
    return graph.add("LayerNormalization", x, graph.weight(value=one), graph.weight(value=zero))
