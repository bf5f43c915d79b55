"""Nested arguments and answers as arrays by name, and back.

{"x": a, "state": (h, c)}  ──Form──► x, state_0, state_1  ──build──► {"x": a, "state": (h, c)}
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from modelserve.errors import ConversionError, SignatureError
from modelserve.tensors import Array


@dataclass(frozen=True, slots=True)
class Form:
    """One argument taken apart.

    Attributes:
        leaves: What can vary, by name.
        constants: What stays as it was given (None, switches, single numbers), by name.
        build: The argument anew, from other leaves by the same names.
    """

    leaves: Mapping[str, Any]
    constants: Mapping[str, Any]
    build: Callable[[Mapping[str, Any]], Any]


def form(name: str, value: Any) -> Form:
    """Take an argument apart; its leaves are named after it and the way to them."""
    if value is None or isinstance(value, bool | int | float | str):
        return Form({}, {name: value}, lambda _: value)
    if isinstance(value, Mapping):
        keys = list(value)
        forms = {str(key): form(f"{name}_{key}", value[key]) for key in keys}
        return joined(forms, lambda parts: dict(zip(keys, parts.values(), strict=True)))
    if isinstance(value, tuple) or (isinstance(value, list) and any(hasattr(part, "shape") for part in value)):
        return joined({str(at): form(f"{name}_{at}", part) for at, part in enumerate(value)}, _sequence_like(value))
    return Form({name: value}, {}, lambda leaves: leaves[name])


def joined(forms: Mapping[str, Form], rebuild: Callable[[dict[str, Any]], Any]) -> Form:
    """Several forms as one, whose `build` gives what `rebuild` makes of their parts."""
    leaves: dict[str, Any] = {}
    constants: dict[str, Any] = {}
    for part in forms.values():
        twice = [name for name in part.leaves if name in leaves]
        if twice:
            raise SignatureError(f"Two parts of the example would both be called {twice[0]!r}. Name them otherwise.")
        leaves |= part.leaves
        constants |= part.constants
    return Form(leaves, constants, lambda given: rebuild({name: part.build(given) for name, part in forms.items()}))


def as_array(name: str, value: Any) -> Array:
    """A leaf of the example as numbers, at least one row of them.

    Raises:
        SignatureError: it is something else.
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise SignatureError(
            f"The example for {name!r} cannot be read as an array ({error}). Rows must all have the same length."
        ) from error
    if array.dtype.kind not in "biuf" or array.size == 0:
        raise SignatureError(
            f"The example for {name!r} must be numbers with at least one row, got {array.dtype} of shape {array.shape}."
        )
    return np.array(array, order="C")


def named(answer: Any, is_leaf: Callable[[Any], bool], taken: Collection[str] = ()) -> dict[str, Any]:
    """An answer's leaves by name: "output" for a single one, else by keys, fields or positions.

    What is None is left out. A name that an input has already (`taken`) gets "_output" behind it.

    Raises:
        ConversionError: it holds something that is no leaf.
    """
    found: dict[str, Any] = {}
    for name, leaf in _walk("", answer, is_leaf):
        wish = name or "output"
        free = f"{wish}_output" if wish in taken else wish
        while free in found:
            free += "_"
        found[free] = leaf
    return found


def _walk(name: str, value: Any, is_leaf: Callable[[Any], bool]) -> Iterator[tuple[str, Any]]:
    if value is None:
        return
    if is_leaf(value):
        yield name, value
        return
    for key, part in _parts(name, value):
        yield from _walk(f"{name}_{key}" if name else key, part, is_leaf)


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items())
    elif hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, tuple | list):
        yield from ((str(at) if name else f"output_{at}", part) for at, part in enumerate(value))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from ((field.name, getattr(value, field.name)) for field in fields(value))
    else:
        raise ConversionError(
            f"The model answers with {type(value).__name__}{f' ({name})' if name else ''}; tensors, and tuples and "
            "dicts of them, can be served."
        )


def _sequence_like(value: Sequence[Any]) -> Callable[[dict[str, Any]], Any]:
    kind = type(value)
    if hasattr(kind, "_fields"):
        return lambda parts: kind(*parts.values())
    return lambda parts: kind(parts.values())  # type: ignore[call-arg]  # a tuple or a list
