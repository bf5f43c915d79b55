"""How often `Auto` breaks its bound on rows that it never saw: many searches, each on rows of its own.

each seed: 1,500 rows ──Auto(max_drop)──► chosen ──► its changed decisions on 50,000 fresh rows, against the bound

The network's units are alike, as many of trained ones are, so that pruning leaves drops on both sides of the bound.
Only decisions matter here: nothing is timed, and the goal is the size.
"""

from __future__ import annotations

from dataclasses import dataclass
from unittest import mock

import numpy as np
from onnx import helper, numpy_helper

from modelserve.bundle import Bundle, Origin, Step, write
from modelserve.optimize import Auto, contest, optimize, search
from modelserve.optimize.draft import Memory
from modelserve.optimize.int8 import int8_static
from modelserve.optimize.recipes import Recipe
from modelserve.optimize.structured import structured
from modelserve.optimize.timing import Speed
from modelserve.session import Session
from modelserve.tensors import Signature, TensorSpec

_ROWS, _FRESH_ROWS = 1500, 50_000
_INPUTS, _DISTINCT, _HIDDEN, _CLASSES = 32, 48, 192, 5


@dataclass(frozen=True, slots=True)
class Overruns:
    """What came of the searches. `drops` are those on fresh rows, of the searches that chose something."""

    searches: int
    bound: float
    drops: tuple[float, ...]

    @property
    def count(self) -> int:
        return sum(drop > self.bound for drop in self.drops)

    def __str__(self) -> str:
        median = float(np.median(self.drops)) if self.drops else float("nan")
        return (
            f"{self.searches} searches within {self.bound:g}: {len(self.drops)} found something (median drop on "
            f"{_FRESH_ROWS} fresh rows {median:.4f}), {self.count} overran the bound there"
        )


def count_overruns(searches: int, bound: float) -> Overruns:
    """Search with the seeds 0, 1, ..."""
    bundle = _network()
    session = Session(bundle)
    fresh = _rows(1_000_000, _FRESH_ROWS)
    wanted = session.run({"x": fresh})["scores"].argmax(axis=1)
    drops = []
    with (
        mock.patch.object(search, "candidates", _candidates),
        mock.patch.object(
            contest, "race", lambda _original, others, *_, **__: dict.fromkeys(others, Speed(1, 1, 1, 1))
        ),
    ):
        for seed in range(searches):
            best = optimize(bundle, Auto(max_drop=bound, data=_rows(seed, _ROWS), goal="size"))
            if best.manifest.reports[-1]["chosen"]:
                drops.append(float((Session(best).run({"x": fresh})["scores"].argmax(axis=1) != wanted).mean()))
    return Overruns(searches, bound, tuple(drops))


def _candidates(*_args: object, **_settings: object) -> list[Recipe]:
    surveys: Memory = Memory()
    pruned = [(f"prune {amount:.0%}", structured(amount, surveys)) for amount in np.linspace(0.2, 0.8, 13)]
    return [
        *(Recipe(name, (step,), "units") for name, step in pruned),
        *(Recipe(f"{name}, int8", (step, int8_static()), "units, int8") for name, step in pruned),
    ]


def _rows(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, _INPUTS)).astype(np.float32)


def _network() -> Bundle:
    random = np.random.default_rng(0)
    # Some units, each several times and a little different, so that units can go at a price that grows.
    distinct, copies = random.normal(size=(_INPUTS, _DISTINCT)) / np.sqrt(_INPUTS), _HIDDEN // _DISTINCT
    differences = random.normal(size=(_INPUTS, _HIDDEN)) * np.linspace(0, 0.02, _HIDDEN)
    arrays = {
        "w1": np.tile(distinct, (1, copies)) + differences,
        "b1": np.tile(random.normal(size=_DISTINCT) / 4, copies),
        "w2": random.normal(size=(_HIDDEN, _CLASSES)) / np.sqrt(_HIDDEN),
        "b2": np.zeros(_CLASSES),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["units"]),
        helper.make_node("Gemm", ["units", "w2", "b2"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "overruns",
        [helper.make_tensor_value_info("x", 1, ["batch", _INPUTS])],
        [helper.make_tensor_value_info("scores", 1, ["batch", _CLASSES])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    return write(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        signature=Signature(
            (TensorSpec("x", "float32", ("batch", _INPUTS)),), (TensorSpec("scores", "float32", ("batch", _CLASSES)),)
        ),
        origin=Origin("benchmark", "Network"),
        lineage=(Step("make"),),
        example={"x": _rows(0, 8)},
        rows_independent=True,
    )
