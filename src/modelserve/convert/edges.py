"""Rows to try a conversion on: the example, and what lies at and beyond its edges; always the same ones.

A model that takes batches is tried in batches of several sizes, and each other axis that may be of any size likewise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from modelserve.fidelity import Sample
from modelserve.tensors import Array, Signature, Tensors, TensorSpec

_BATCH_SIZES = (1, 2, 7)
_SHUFFLED_ROWS = 24
_LARGEST_BYTES = 8 << 20
_NAN_ROWS = 8
_UNSEEN = "\u2603 unseen"


def samples(signature: Signature, example: Tensors, *, seed: int = 0) -> Iterator[Sample]:
    """The example, several batch sizes of it, boundary rows, shuffled rows and unseen text.

    Probes (unseen text, capital letters) come last; a source that refuses them is not held to them.
    """
    yield Sample("example", example)
    random = np.random.default_rng(seed)
    if not all(spec.is_batched for spec in signature.inputs):
        yield from _fixed_samples(example, random)
        return
    for rows in _BATCH_SIZES:
        yield Sample(batches_of(rows), _resized(example, rows))
    few = _few_rows(example)
    yield Sample("shuffled", {name: _shuffled(array, random, few) for name, array in example.items()})
    yield Sample("boundary", _same_rows({name: _boundary(array) for name, array in example.items()}))
    if any(array.dtype.kind == "O" for array in example.values()):
        two = _resized(example, 2)
        yield Sample("unseen text", {name: _unseen(array) for name, array in two.items()}, probes=True)
        # Making letters small again is a matter of languages, which runtimes know fewer of.
        yield Sample("capital letters", {name: _capital(array) for name, array in example.items()}, probes=True)


def batches_of(rows: int) -> str:
    """Where the samples of one batch size come from."""
    return f"batches of {rows}"


def batch_sizes(rows: int) -> tuple[int, ...]:
    """The sizes tried besides the example's own."""
    return tuple(size for size in _BATCH_SIZES if size != rows)


def axis_samples(signature: Signature, example: Tensors, names: Sequence[str]) -> Iterator[Sample]:
    """The example's first rows with the axes called `names` at several sizes: shorter, and longer than the example.

    Probes: where a size leaves nothing to compute on, frameworks differ in what the mean of nothing is.
    """
    places = {spec.name: [at for at, size in enumerate(spec.shape) if size in names] for spec in signature.inputs}
    size = next(example[name].shape[at] for name, axes in places.items() for at in axes)
    rows = _resized(example, 2) if all(spec.is_batched for spec in signature.inputs) else example
    for wanted in dict.fromkeys((1, 3, size + 2, 2 * size)):
        if wanted == size:
            continue
        tensors = {name: _stretched(array, places[name], wanted) for name, array in rows.items()}
        if sum(array.nbytes for array in tensors.values()) <= _LARGEST_BYTES:
            yield Sample(f"{' and '.join(names)} of {wanted}", tensors, probes=True)


def infinity_samples(signature: Signature, example: Tensors) -> Iterator[Sample]:
    """Rows with infinity in one place, and throughout; nothing where there are no floating numbers or no batches."""
    if not all(spec.is_batched for spec in signature.inputs):
        return
    two = _resized(example, 2)
    if any(array.dtype.kind == "f" for array in example.values()):
        yield Sample("infinity", {name: _with(array, np.inf) for name, array in two.items()}, probes=True)


def nan_samples(spec: TensorSpec, example: Tensors) -> Iterator[Sample]:
    """Rows of the example with NaN in one input: throughout, and in one place of each of some rows."""
    rows = _resized(example, 1 + _NAN_ROWS)
    array = np.array(rows[spec.name])
    array[0] = np.nan
    flat = array.reshape(array.shape[0], -1)
    for row in range(1, flat.shape[0]):
        flat[row, (row - 1) % flat.shape[1]] = np.nan
    yield Sample(f"NaN in {spec.name!r}", {**rows, spec.name: array}, probes=True)


def _fixed_samples(example: Tensors, random: np.random.Generator) -> Iterator[Sample]:
    """For a model that takes the example's sizes only: its values in another order, and its smallest and largest."""
    mixed = {name: random.permutation(array.reshape(-1)).reshape(array.shape) for name, array in example.items()}
    yield Sample("shuffled", mixed)
    for kind, pick in (("smallest", np.min), ("largest", np.max)):
        if all(array.dtype.kind in "biuf" for array in example.values()):
            edge = {name: np.full_like(array, pick(_known(array))) for name, array in example.items()}
            yield Sample(f"boundary, {kind}", edge)


def _stretched(array: Array, axes: Sequence[int], size: int) -> Array:
    """The array with `axes` at `size`: its values cut off, or repeated from the start."""
    for axis in axes:
        array = np.take(array, np.arange(size) % array.shape[axis], axis=axis)
    return array


def _few_rows(example: Tensors) -> int:
    row_bytes = sum(array[:1].nbytes for array in example.values())
    return max(2, min(_SHUFFLED_ROWS, _LARGEST_BYTES // max(row_bytes, 1)))


def _resized(example: Tensors, rows: int) -> Tensors:
    return {name: np.resize(array, (rows, *array.shape[1:])) for name, array in example.items()}


def _shuffled(array: Array, random: np.random.Generator, rows: int) -> Array:
    """Each column drawn by itself from the values seen in it, so that combinations are new and values are not."""
    flat = array.reshape(array.shape[0], -1)
    picked = random.integers(0, flat.shape[0], size=(rows, flat.shape[1]))
    drawn = np.take_along_axis(flat, picked, axis=0)
    if array.dtype.kind == "f":
        # Between the values seen, too; in the array's own precision.
        other = np.take_along_axis(flat, random.integers(0, flat.shape[0], size=drawn.shape), axis=0)
        share = random.random(size=drawn.shape).astype(array.dtype)
        with np.errstate(all="ignore"):
            drawn = np.where(random.random(size=drawn.shape) < 0.5, drawn, drawn * share + other * (1 - share))
    return drawn.astype(array.dtype).reshape(rows, *array.shape[1:])


def _boundary(array: Array) -> Array:
    """Smallest, largest, middle; for floating numbers zero and what lies beyond, too."""
    if array.dtype.kind not in "fiu":
        return array[:1]
    with np.errstate(all="ignore"):
        known = _known(array)
        low, high = known.min(axis=0, keepdims=True), known.max(axis=0, keepdims=True)
        if array.dtype.kind != "f":
            return np.concatenate([low, high])  # a whole number may be an index: nothing beyond those seen
        width = high - low
        middle = known.mean(axis=0, keepdims=True, dtype=np.float64).astype(array.dtype)
        edges = [low, high, middle, np.zeros_like(low), low - width, high + width, -high]
    return np.concatenate(edges).astype(array.dtype)


def _known(array: Array) -> Array:
    return np.nan_to_num(array) if array.dtype.kind == "f" else array


def _same_rows(tensors: Tensors) -> Tensors:
    rows = max(array.shape[0] for array in tensors.values())
    return _resized(tensors, rows)


def _with(array: Array, value: float) -> Array:
    """The value in the first row's first place, and throughout the second row."""
    if array.dtype.kind != "f":
        return array
    changed = np.array(array)
    changed[0].reshape(-1)[:1] = value
    changed[1] = value
    return changed


def _unseen(array: Array) -> Array:
    return np.full_like(array, _UNSEEN) if array.dtype.kind == "O" else array


def _capital(array: Array) -> Array:
    if array.dtype.kind != "O":
        return array
    return np.array([text.upper() for text in array.ravel()], object).reshape(array.shape)
