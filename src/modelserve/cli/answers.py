"""Answers into files and onto the screen: .npy, .npz, .csv, .json, .jsonl."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from modelserve.cli.tables import KINDS
from modelserve.errors import InputError
from modelserve.tensors import Array

#: Outputs by name.
Answers = Mapping[str, Array]


def check_kind(path: Path, *, outputs: int) -> None:
    """Refuse a file that the answer cannot be written to, before any work is done."""
    if path.suffix.lower() not in KINDS:
        raise InputError(f"{str(path)!r} is of no known kind; known are {', '.join(KINDS)}.")
    if path.suffix.lower() == ".npy" and outputs > 1:
        raise InputError(f"{str(path)!r} holds one array, asked are {outputs} outputs. Write to .npz.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"There is no folder {str(path.absolute().parent)!r} to write {path.name!r} into.")


def write(answers: Answers, path: Path, *, is_one: bool) -> None:
    """Put answers into a file, whole or not at all.

    Args:
        is_one: There is one output, whose name the caller did not ask for; JSON then holds no name.
    """
    content = _WRITERS[path.suffix.lower()](answers, is_one)
    handle, scratch = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(scratch).chmod(0o666 & ~_umask())
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def lines(answers: Answers, *, is_one: bool) -> Iterator[str]:
    """One JSON line a row; NaN and infinities, which JSON has not, as null."""
    plain = {name: as_json(array) for name, array in answers.items()}
    for row in zip(*plain.values(), strict=True):
        yield json.dumps(row[0] if is_one else dict(zip(plain, row, strict=True)), ensure_ascii=False)


def document(answers: Answers, *, is_one: bool) -> Any:
    """All rows as plain JSON: a list, or an object of lists by output."""
    plain = {name: as_json(array) for name, array in answers.items()}
    return next(iter(plain.values())) if is_one else plain


def as_json(array: Array) -> Any:
    """An array as nested lists that JSON can hold."""
    array = _with_short_numbers(array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return _without_nan(array.tolist())
    return array.tolist()


def _with_short_numbers(array: Array) -> Array:
    # A float32 of 0.1 is 0.10000000149011612 as a Python float; its own shortest text reads back as the same float32.
    return array.astype(str).astype(np.float64) if array.dtype in (np.float16, np.float32) else array


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return value if math.isfinite(value) else None


def _npy(answers: Answers, _: bool) -> bytes:
    stream = io.BytesIO()
    np.save(stream, _storable(next(iter(answers.values()))), allow_pickle=False)
    return stream.getvalue()


def _npz(answers: Answers, _: bool) -> bytes:
    stream = io.BytesIO()
    _savez(stream, {name: _storable(array) for name, array in answers.items()})
    return stream.getvalue()


def _csv(answers: Answers, _: bool) -> bytes:
    columns: dict[str, Array] = {}
    for name, array in answers.items():
        flat = _with_short_numbers(array).reshape(len(array), -1)
        names = [name] if flat.shape[1] == 1 else [f"{name}_{index}" for index in range(flat.shape[1])]
        columns |= dict(zip(names, flat.T, strict=True))
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    return stream.getvalue().encode()


def _json(answers: Answers, is_one: bool) -> bytes:
    return json.dumps(document(answers, is_one=is_one), ensure_ascii=False).encode() + b"\n"


def _jsonl(answers: Answers, is_one: bool) -> bytes:
    return "".join(f"{line}\n" for line in lines(answers, is_one=is_one)).encode()


def _savez(stream: IO[bytes], arrays: Answers) -> None:
    np.savez(stream, allow_pickle=False, **arrays)


def _storable(array: Array) -> Array:
    return array.astype(str) if array.dtype.kind == "O" else array


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_WRITERS: Mapping[str, Callable[[Answers, bool], bytes]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
}
