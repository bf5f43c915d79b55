"""Which axes can be of any size? The source is asked; then a graph is held against what the source answered.

    example ──explore──► Axis: places that vary together, with the source's answers at several sizes
                          │
                          └─ lying(candidate) ──► the axes at whose other sizes the graph answers otherwise

An axis of the inputs is free where the source itself answers at other sizes. What is free may still be baked into a
graph by an exporter, without a word: only a comparison at those sizes tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np

from modelserve.fidelity import Answer, Sample, Tolerance, compare, default_tolerance
from modelserve.tensors import Array, Tensors

#: An input's name, and the number of one of its axes.
Place: TypeAlias = tuple[str, int]
#: How a graph's answer to a probe of this origin differs; empty where it does not.
_Difference: TypeAlias = Callable[["Probe", str], str]

BATCH = "batch"
_FEW_ROWS = 3
# A lie about an axis is gross; how close is close enough is for the certificate to say.
_SLACK = 10.0


class Probe(NamedTuple):
    """Inputs, and what the source answers to them."""

    tensors: Tensors
    answers: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Axis:
    """Places that have one size, and can have another together.

    Attributes:
        size: In the example.
        probes: By other sizes that the source takes.
    """

    name: str
    size: int
    places: tuple[Place, ...]
    probes: Mapping[int, Probe]


@dataclass(frozen=True, slots=True)
class Freedom:
    """What the source says of its axes: `axes` are free, all else is as in the example (`whole`)."""

    whole: Probe
    axes: tuple[Axis, ...]

    @property
    def base(self) -> Probe:
        """The example; of a few rows only, where the batch is free."""
        batch = next((axis for axis in self.axes if axis.name == BATCH and axis.size > _FEW_ROWS), None)
        return self.whole if batch is None else batch.probes.get(_FEW_ROWS, self.whole)

    def only(self, names: Iterable[str]) -> Freedom:
        """With these axes alone; with none where the batch is left out, in whose few rows the others were tried."""
        kept = set(names)
        axes = tuple(axis for axis in self.axes if axis.name in kept)
        return Freedom(self.whole, axes if self.names[:1] != (BATCH,) or BATCH in kept else ())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.axes)

    def shape(self, name: str) -> tuple[int | str, ...]:
        """An input's shape for the signature."""
        sizes: list[int | str] = list(self.base.tensors[name].shape)
        for axis in self.axes:
            for place, position in axis.places:
                if place == name:
                    sizes[position] = axis.name
        return tuple(sizes)


def explore(reference: Answer, example: Tensors, answers: Mapping[str, Array], *, channels_last: bool) -> Freedom:
    """Ask the source which axes of its inputs are free.

    Args:
        answers: The source's, to the example.
        channels_last: Whether images are (rows, height, width, channels); for readable names only.
    """
    whole = Probe(example, answers)
    rows = _batch_places(example)
    batch = _freed(reference, whole, rows, _batch_sizes(example[rows[0][0]].shape[0])) if rows else None
    taken = rows if batch is not None else ()
    freedom = Freedom(whole, () if batch is None else (replace(batch, name=BATCH),))
    places = [(name, at) for name, array in example.items() for at in range(array.ndim) if (name, at) not in taken]
    others = _named(list(_others(reference, freedom.base, places)), example, channels_last=channels_last)
    return Freedom(whole, freedom.axes + others)


def together(reference: Answer, freedom: Freedom) -> Probe:
    """Inputs with every free axis at a size of its own, where the source takes that; else as they are.

    Exporters take sizes that are equal by chance for equal by nature, and a size of 1 for one that never changes.
    """
    tensors, used = freedom.base.tensors, set[int]()
    for axis in freedom.axes:
        size = next((size for size in sorted(axis.probes) if size > 1 and size not in used), axis.size)
        used.add(size)
        tensors = _resized(tensors, axis.places, size)
    answers = _asked(reference, tensors, freedom.base.answers)
    return freedom.base if answers is None else Probe(tensors, answers)


def lying(
    candidate: Answer, reference: Answer, freedom: Freedom, joint: Probe, tolerance: Tolerance | None = None
) -> dict[str, str]:
    """The free axes at whose other sizes `candidate` answers otherwise than the source: how, by the axes' names.

    Args:
        joint: The inputs that the candidate was made of, with the source's answers.
        tolerance: What the route is known to reach; None for what fits the outputs' dtypes.
    """
    usual = tolerance or default_tolerance(list(joint.answers.values()))
    differs = partial(_difference, candidate, Tolerance(usual.absolute * _SLACK, usual.relative * _SLACK))
    if not freedom.axes:
        return {}
    astray = differs(freedom.base, "the example's sizes")
    found = dict(_baked(differs, reference, freedom, joint) if astray else _stretched(differs, freedom))
    together = astray or differs(joint, "several sizes changed at once")
    if not found and together:
        found = {axis.name: together for axis in freedom.axes if axis.name != BATCH} or {BATCH: together}
    return found


def _stretched(differs: _Difference, freedom: Freedom) -> Iterator[tuple[str, str]]:
    """Axes at another size of which the candidate errs, all others being as in the example."""
    for axis in freedom.axes:
        reasons = (differs(probe, f"{axis.name} = {size}") for size, probe in axis.probes.items())
        reason = next(filter(None, reasons), "")
        if reason:
            yield axis.name, reason


def _baked(differs: _Difference, reference: Answer, freedom: Freedom, joint: Probe) -> Iterator[tuple[str, str]]:
    """Axes at the example's own size of which the candidate errs, all others being as it was made."""
    for axis in freedom.axes:
        name, position = axis.places[0]
        tensors = _resized(joint.tensors, axis.places, freedom.base.tensors[name].shape[position])
        answers = _asked(reference, tensors, joint.answers)
        reason = differs(Probe(tensors, answers), f"{axis.name} = {axis.size}") if answers else ""
        if reason:
            yield axis.name, reason


def output_shape(name: str, freedom: Freedom) -> tuple[int | str, ...]:
    """An output's shape for the signature, from how its sizes went with those of the inputs' axes."""
    base = freedom.base.answers[name]
    sizes: list[int | str] = list(base.shape)
    for position, size in enumerate(base.shape):
        for axis in freedom.axes:
            seen = {tried: probe.answers[name].shape[position] for tried, probe in axis.probes.items()}
            if all(got == size for got in seen.values()):
                continue
            follows = all(got == tried for tried, got in seen.items()) and sizes[position] == size
            sizes[position] = axis.name if follows else f"{name}_axis_{position}"
    return tuple(sizes)


def _batch_places(example: Tensors) -> tuple[Place, ...]:
    """The first axes of all inputs that have as many rows as the first one."""
    sizes = {name: array.shape[0] for name, array in example.items() if array.ndim}
    rows = next(iter(sizes.values()), None)
    return tuple((name, 0) for name, size in sizes.items() if size == rows)


def _batch_sizes(rows: int) -> list[int]:
    # 3 before 1, since by broadcasting 1 fits where nothing else does.
    return [size for size in (_FEW_ROWS, 2, 1) if size != rows]


def _sizes(size: int) -> list[int]:
    """Larger ones first, which decide; twice the size for what must be a multiple."""
    return [other for other in (size + 1, 2 * size, 1, 3) if other not in (size, 0)]


def _freed(reference: Answer, base: Probe, places: Sequence[Place], sizes: Sequence[int]) -> Axis | None:
    """The places as one axis, if the source answers at one of the first two sizes."""
    size = base.tensors[places[0][0]].shape[places[0][1]]
    probes: dict[int, Probe] = {}
    for count, other in enumerate(dict.fromkeys(sizes)):
        if count == 2 and not probes:
            return None
        tensors = _resized(base.tensors, places, other)
        answers = _asked(reference, tensors, base.answers)
        if answers is not None:
            probes[other] = Probe(tensors, answers)
    return Axis("", size, tuple(places), probes) if probes else None


def _others(reference: Answer, base: Probe, places: Sequence[Place]) -> Iterator[Axis]:
    """Axes besides the batch: places of one position and size together, else each alone, else with all of its size.

    Together first: a mask of nothing but ones is often not looked at, and would seem to have a size of its own.
    """

    def size(place: Place) -> int:
        return int(base.tensors[place[0]].shape[place[1]])

    left = [place for place in places if size(place) > 0]
    for group in _groups(left, lambda place: (place[1], size(place))):
        for axis in _parts(reference, base, group, _sizes(size(group[0]))):
            yield axis
            left = [place for place in left if place not in axis.places]
    for group in _groups(left, lambda place: (0, size(place))):
        # Those of one position have been tried above; a mask of (sequence, sequence) goes with an axis elsewhere.
        if len({position for _, position in group}) > 1:
            square = _freed(reference, base, group, _sizes(size(group[0])))
            if square is not None:
                yield square


def _parts(reference: Answer, base: Probe, group: Sequence[Place], sizes: Sequence[int]) -> list[Axis]:
    together = _freed(reference, base, group, sizes)
    if together is not None or len(group) == 1:
        return [together] if together is not None else []
    alone = (_freed(reference, base, [place], sizes) for place in group)
    return [axis for axis in alone if axis is not None]


def _groups(places: Sequence[Place], key: Callable[[Place], tuple[int, int]]) -> list[list[Place]]:
    groups: dict[tuple[int, int], list[Place]] = {}
    for place in places:
        groups.setdefault(key(place), []).append(place)
    return list(groups.values())


def _named(axes: Sequence[Axis], example: Tensors, *, channels_last: bool) -> tuple[Axis, ...]:
    taken = {BATCH}
    named = []
    for axis in axes:
        name, position = axis.places[0]
        wish = _word(position, example[name].ndim, channels_last=channels_last) or f"{name}_axis_{position}"
        if wish in taken:
            wish = f"{name}_{wish}" if f"{name}_{wish}" not in taken else f"{name}_axis_{position}"
        taken.add(wish)
        named.append(replace(axis, name=wish))
    return tuple(named)


def _word(position: int, rank: int, *, channels_last: bool) -> str:
    """What the field calls this axis, as far as its place tells."""
    spatial = {4: ("height", "width"), 5: ("depth", "height", "width")}.get(rank)
    if spatial:
        first = 1 if channels_last else 2
        return spatial[position - first] if first <= position < first + len(spatial) else ""
    return {(1, 2): "sequence", (1, 3): "sequence", (2, 3): "length"}.get((position, rank), "")


def _resized(tensors: Tensors, places: Iterable[Place], size: int) -> dict[str, Array]:
    """Along these places, the rows over and over again, as many as wanted."""
    changed = dict(tensors)
    for name, position in places:
        array = changed[name]
        picked = np.arange(size) % array.shape[position]
        changed[name] = np.ascontiguousarray(np.take(array, picked, axis=position))
    return changed


def _asked(reference: Answer, tensors: Tensors, like: Mapping[str, Array]) -> Mapping[str, Array] | None:
    """What the source answers, where its outputs are those that it always has, and numbers if they usually are.

    A mean over nothing, at a size too small for the layers before it, is an accident and no answer.
    """
    try:
        answers = reference(tensors)
    except Exception:  # noqa: BLE001  # a source refuses sizes by any exception; that is its answer
        return None
    if answers.keys() != like.keys() or any(answers[name].ndim != like[name].ndim for name in like):
        return None
    strays = any(_is_finite(like[name]) and not _is_finite(answers[name]) for name in like)
    return None if strays else answers


def _is_finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _difference(candidate: Answer, tolerance: Tolerance, probe: Probe, origin: str) -> str:
    return compare(lambda _: probe.answers, candidate, [Sample(origin, probe.tensors)], tolerance=tolerance).reason
