"""Which columns are meant: said by the caller, or told by names and sizes; refused before anything is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from modelserve.dataset.feed import Feed
from modelserve.dataset.images import are_pictures, check_takes_pictures
from modelserve.dataset.sources import Source, Wanted
from modelserve.errors import InputError, SignatureError
from modelserve.tensors import Signature, TensorSpec

#: Column names in the order of the inputs, or by input.
Columns: TypeAlias = Sequence[str] | Mapping[str, str | Sequence[str]]


def choose(source: Source, signature: Signature, columns: Columns | None, keep: Sequence[str], *, cast: bool) -> Feed:
    """What of the source the model is fed with.

    Raises:
        SignatureError: a column is missing, there are too few or too many, or one has a type that does not fit.
    """
    names = source.schema.names
    _check_known(names, keep, "keep")
    chosen = _told(source, signature, keep) if columns is None else _said(signature, columns)
    _check_known(names, [name for some in chosen.values() for name in some], "columns")
    for spec in signature.inputs:
        for name in chosen[spec.name]:
            _check_type(source, spec, name, cast=cast)
    decodes = any(are_pictures(source.schema.field(name).type) for some in chosen.values() for name in some)
    return Feed(signature, chosen, rounds=cast or not source.is_typed, decodes=decodes)


def wanted(source: Source, feed: Feed, keep: Sequence[str]) -> Wanted:
    """What is to be read of the source: what the model takes, and what is kept."""
    fed = [name for some in feed.columns.values() for name in some]
    types = {}
    if not source.is_typed:
        types = {
            name: _read_as(spec, source.schema.field(name).type)
            for spec in feed.signature.inputs
            for name in feed.columns[spec.name]
            if name not in keep
        }
    return Wanted(tuple(dict.fromkeys([*fed, *keep])), types)


def _read_as(spec: TensorSpec, found: Any) -> Any:
    """The type of a column of text that a model takes: wide enough for any number that is written there."""
    if spec.dtype == "string":
        kind = pa.string()
    elif spec.dtype == "bool":
        kind = pa.bool_()
    else:
        kind = pa.float64() if spec.numpy_dtype.kind == "f" else pa.int64()
    while pa.types.is_list(found):
        kind, found = pa.list_(kind), found.value_type
    return kind


def _said(signature: Signature, columns: Columns) -> dict[str, tuple[str, ...]]:
    inputs = [spec.name for spec in signature.inputs]
    if isinstance(columns, str):
        raise InputError(f"columns= takes a list of names, got {columns!r}. Write columns=[{columns!r}].")
    if isinstance(columns, Mapping):
        if set(columns) != set(inputs):
            raise SignatureError(f"columns= names the inputs {sorted(columns)}; the model takes {inputs}.")
        chosen = {name: (given,) if isinstance(given, str) else tuple(given) for name, given in columns.items()}
    elif len(inputs) == 1:
        chosen = {inputs[0]: tuple(columns)}
    elif len(columns) == len(inputs):
        chosen = {name: (column,) for name, column in zip(inputs, columns, strict=True)}
    else:
        raise SignatureError(
            f"The model takes {len(inputs)} inputs ({', '.join(inputs)}), columns= names {len(columns)}. Name one for "
            "each, or give a dict by input."
        )
    for spec in signature.inputs:
        _check_count(spec, chosen[spec.name])
    return chosen


def _told(source: Source, signature: Signature, keep: Sequence[str]) -> dict[str, tuple[str, ...]]:
    names = source.schema.names
    if len(signature.inputs) > 1:
        return {spec.name: (spec.name,) for spec in signature.inputs}
    spec = signature.inputs[0]
    if spec.columns:
        return {spec.name: spec.columns}
    free = [name for name in names if name not in keep]
    if spec.name in free and (len(free) == 1 or _holds_rows(source.schema.field(spec.name).type)):
        return {spec.name: (spec.name,)}
    whole = [name for name in free if _holds_rows(source.schema.field(name).type)]
    chosen = tuple(whole if len(whole) == 1 else free)
    _check_count(spec, chosen)
    return {spec.name: chosen}


def _holds_rows(kind: Any) -> bool:
    """Whether each cell is a whole row of the input."""
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(is_list or are_pictures(kind) or isinstance(kind, pa.ExtensionType))


def _check_count(spec: TensorSpec, chosen: Sequence[str]) -> None:
    if len(chosen) == 1:
        return
    if len(spec.shape) != 2:
        raise SignatureError(
            f"Input {spec.name!r} is {spec} and takes one column, got {len(chosen)}: {', '.join(map(repr, chosen))}. "
            "Say which with columns=[...]."
        )
    width = spec.shape[1]
    if isinstance(width, int) and len(chosen) != width:
        raise SignatureError(
            f"Input {spec.name!r} takes {width} values a row, there are {len(chosen)} columns: "
            f"{', '.join(map(repr, chosen))}. Say which with columns=[...], and which are only kept with keep=[...]."
        )


def _check_known(names: Sequence[str], given: Sequence[str], argument: str) -> None:
    missing = [name for name in given if name not in names]
    if missing:
        raise SignatureError(
            f"The source has no column(s) {', '.join(map(repr, missing))}; it has {', '.join(map(repr, names))}. "
            f"Name others in {argument}=."
        )
    twice = next((name for name in given if list(given).count(name) > 1 or names.count(name) > 1), None)
    if twice is not None:
        raise SignatureError(f"Column {twice!r} stands twice. Name each column once in {argument}=.")


def _check_type(source: Source, spec: TensorSpec, name: str, *, cast: bool) -> None:
    kind = source.schema.field(name).type
    if are_pictures(kind):
        check_takes_pictures(spec)
        return
    while _holds_rows(kind):
        kind = kind.storage_type if isinstance(kind, pa.ExtensionType) else kind.value_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not source.is_typed or pa.types.is_null(kind):
        return
    if not _fits(kind, spec):
        raise SignatureError(f"Column {name!r} is {kind}, which is no {spec.dtype} as input {spec.name!r} takes it.")
    if pa.types.is_floating(kind) and kind.bit_width > 8 * spec.numpy_dtype.itemsize and not cast:
        raise SignatureError(
            f"Column {name!r} is {kind}, and input {spec.name!r} takes {spec.dtype}: its values would be rounded. "
            "Give cast=True (--cast) if that is meant."
        )


def _fits(kind: Any, spec: TensorSpec) -> bool:
    if spec.dtype == "string":
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
    if spec.dtype == "bool":
        return bool(pa.types.is_boolean(kind))
    is_float = spec.numpy_dtype.kind == "f"
    return bool(pa.types.is_integer(kind) or (is_float and pa.types.is_floating(kind)))
