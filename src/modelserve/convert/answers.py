"""The source's own answers as named tensors, and which of a graph's outputs is which of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

from modelserve.convert.graph import element_type, rename
from modelserve.convert.quiet import quiet
from modelserve.convert.table import Table
from modelserve.errors import BundleError, ConversionError
from modelserve.session import load
from modelserve.tensors import Array, Tensors, TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto

# Half of the rows nearer than half of the answers' size: enough to tell one from another. Whether it is the same is
# the certificate's to say.
_NEAR_ENOUGH = 0.5
# Inside a graph there are many values; only what is the answer to all appearances is taken for it.
_AS_GOOD_AS_EQUAL = 1e-4
_MOST_VALUES = 2000

#: What gives each answer, by the answer's name; the first is what `predict` gives. Takes what `Table.rebuild` gives.
Methods = Mapping[str, Callable[[Any], Any]]


def ask(methods: Methods, table: Table, tensors: Tensors) -> dict[str, Array]:
    """The source's answers for these inputs; a list of arrays is numbered, as in `probabilities_0`."""
    given = table.rebuild(tensors)
    found: dict[str, Array] = {}
    with quiet():
        for name, method in methods.items():
            answer = method(given)
            if isinstance(answer, list) and answer and hasattr(answer[0], "shape"):
                found |= {f"{name}_{index}": as_tensor(part) for index, part in enumerate(answer)}
            else:
                found[name] = as_tensor(answer)
    return found


def ask_example(methods: Methods, table: Table) -> dict[str, Array]:
    """The source's answers for the example.

    Raises:
        ConversionError: it refuses its own example.
    """
    try:
        return ask(methods, table, table.tensors)
    except Exception as error:
        # A source refuses inputs by any exception.
        raise ConversionError(f"The source refuses the example itself: {type(error).__name__}: {error}") from error


def as_tensor(answer: Any) -> Array:
    """A dense array; text as objects."""
    dense = answer.toarray() if hasattr(answer, "toarray") else answer
    array = np.asarray(dense)
    return array.astype(object) if array.dtype.kind == "U" else array


def output_spec(name: str, want: Array) -> TensorSpec:
    """An output as the source's answer has it."""
    if want.dtype.kind not in "biufOU":
        raise ConversionError(f"The source's {name!r} is {want.dtype}, which no tensor holds.")
    dtype = "string" if want.dtype.kind in "OU" else want.dtype.name
    return TensorSpec(name, dtype, ("batch", *want.shape[1:]))


def name_outputs(model: ModelProto, table: Table, wanted: Mapping[str, Array]) -> tuple[TensorSpec, ...]:
    """Give the graph's outputs our names, and the source's dtypes and shapes; leave out what answers nothing.

    Each output is recognised by the values it has on the example, not by what an exporter calls it. An answer that
    none of them gives is looked for inside the graph: scores that only become probabilities, for one.

    Raises:
        ConversionError: the graph cannot be run, or none of its outputs is what `predict` gives.
    """
    got = _run(model, table)
    if any(
        isinstance(answer, list) or answer.ndim > max(want.ndim for want in wanted.values()) for answer in got.values()
    ):
        _take_apart(model, got)
        got = _run(model, table)
    keep = _match(got, wanted, _NEAR_ENOUGH)
    first = next(iter(wanted))
    if first not in keep.values():
        raise ConversionError(f"No output of the converted graph is close to the source's {first!r}.")
    missing = {name: want for name, want in wanted.items() if name not in keep.values()}
    inner = _find_inside(model, table, missing) if missing else {}
    for value in [value for value in model.graph.output if value.name not in keep]:
        model.graph.output.remove(value)
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in inner)
    keep |= {name: new for name, (new, _) in inner.items()}
    got |= {name: array for name, (_, array) in inner.items()}
    _declare_as_found(model, got)
    rename(model, keep)
    order = [name for name in wanted if name in keep.values()]
    values = {value.name: value for value in model.graph.output}
    del model.graph.output[:]
    model.graph.output.extend(values[name] for name in order)
    return tuple(output_spec(name, wanted[name]) for name in order)


def _take_apart(model: ModelProto, got: Mapping[str, Any]) -> None:
    """Outputs that are lists of tensors, or tables of several outputs in one tensor, as one output each."""
    for value in list(model.graph.output):
        answer = got[value.name]
        kind = "SequenceAt" if isinstance(answer, list) else "Gather"
        if kind == "Gather" and answer.ndim < 3:
            continue
        model.graph.output.remove(value)
        for index in range(len(answer)):
            at, name = f"{value.name}_at_{index}", f"{value.name}_{index}"
            model.graph.initializer.append(numpy_helper.from_array(np.array(index, np.int64), at))
            model.graph.node.append(helper.make_node(kind, [value.name, at], [name]))
            model.graph.output.append(helper.make_empty_tensor_value_info(name))


def _find_inside(model: ModelProto, table: Table, missing: Mapping[str, Array]) -> dict[str, tuple[str, Array]]:
    """Values inside the graph that give these answers: the answer's name, and the value, by the value's name."""
    outer = {value.name for value in (*model.graph.input, *model.graph.output)}
    names = [name for node in model.graph.node for name in node.output if name and name not in outer]
    if len(names) > _MOST_VALUES:
        return {}
    wider = type(model)()
    wider.CopyFrom(model)
    wider.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    got = {name: answer for name, answer in _run(wider, table).items() if name in set(names)}
    matches = _match(got, missing, _AS_GOOD_AS_EQUAL)
    return {old: (new, got[old]) for old, new in matches.items()}


def _run(model: ModelProto, table: Table) -> dict[str, Any]:
    """What the graph itself answers to the example, by its own names."""
    try:
        session = load(model.SerializeToString())
    except BundleError as error:
        raise ConversionError(f"The converted graph is not valid: {error}") from error
    feeds = session.get_inputs()
    given = {
        feed.name: _fed(table.tensors[spec.name], feed.type) for feed, spec in zip(feeds, table.specs, strict=True)
    }
    names = [value.name for value in session.get_outputs()]
    try:
        answers = session.run(names, given)
    except Exception as error:
        # onnxruntime raises classes of its C++ side without a common root.
        raise ConversionError(f"onnxruntime cannot run the converted graph: {error}") from error
    return {
        name: answer if isinstance(answer, list) else as_tensor(answer)
        for name, answer in zip(names, answers, strict=True)
    }


def _fed(array: Array, kind: str) -> Array:
    if array.dtype.kind == "O":
        return array
    dtype = {"tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}.get(kind, np.float32)
    return array.astype(dtype)


def _declare_as_found(model: ModelProto, got: Mapping[str, Array]) -> None:
    """Declare the dtypes and numbers of axes that the outputs turn out to have: exporters get them wrong."""
    for value in model.graph.output:
        array = got[value.name]
        kind = element_type("string" if array.dtype.kind == "O" else array.dtype.name)
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, [None] * array.ndim))


def _match(got: Mapping[str, Any], wanted: Mapping[str, Array], nearer_than: float) -> dict[str, str]:
    """Which of the graph's values is which of the source's answers; the nearest one, each taken once."""
    pairs = []
    for old, array in got.items():
        for rank, (new, want) in enumerate(wanted.items()):
            if (
                isinstance(array, np.ndarray)
                and array.size == want.size
                and (array.dtype.kind in "OU") == (want.dtype.kind in "OU")
            ):
                pairs.append((_distance(array, want), rank, old, new))
    matches: dict[str, str] = {}
    for distance, _, old, new in sorted(pairs):
        if old not in matches and new not in matches.values() and distance < nearer_than:
            matches[old] = new
    return matches


def _distance(array: Array, want: Array) -> float:
    """Share of unequal elements for text; else the median error, as a share of the answers' size."""
    flat, exact = array.reshape(-1), want.reshape(-1)
    if want.dtype.kind in "OU":
        return float((flat != exact).mean())
    exact = exact.astype(np.float64)
    scale = float(np.abs(exact).max(initial=0.0)) or 1.0
    with np.errstate(all="ignore"):
        error = np.abs(flat.astype(np.float64) - exact) / scale
    return float(np.median(np.where(np.isnan(error), 0.0, error)))


def names_in(names: Iterable[str], prefix: str) -> Sequence[str]:
    """Those of the answers that `prefix` names, numbered or not."""
    return [name for name in names if name == prefix or name.startswith(f"{prefix}_")]
