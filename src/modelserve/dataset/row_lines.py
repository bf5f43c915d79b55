"""Rows as the lines that a batch service carries, and its answers' lines as arrays; `modelserve.backend.jobs` has both.

A number travels as the shortest text that gives the same number again, so that nothing is rounded on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson

from modelserve.dataset.asking import Answered, Failure
from modelserve.dataset.feed import Group
from modelserve.errors import WireError
from modelserve.runtime.server.formats.values import array_from_json, json_from_array, parse
from modelserve.tensors import Array, TensorSpec


class _Answer(msgspec.Struct, rename={"row": "$row"}):
    row: tuple[int, int] | None
    outputs: dict[str, msgspec.Raw] | None = None
    error: str = ""
    code: str = ""


class Answers(NamedTuple):
    """What a service said of a part's rows, by their numbers within it."""

    found: Mapping[int, Mapping[str, msgspec.Raw]]
    failed: Mapping[int, tuple[str, str]]


def written(group: Group, part: int, first: int, outputs: Sequence[str]) -> list[bytes]:
    """The lines of a group's rows, without line breaks.

    Args:
        first: The number within the part of the batch's first row.
    """
    asked = orjson.dumps(list(outputs))
    names = [(orjson.dumps(name), array) for name, array in group.tensors.items()]
    return [
        b'{"$row":[%d,%d],"inputs":{%b},"outputs":%b}'
        % (
            part,
            first + position,
            b",".join(b"%b:%b" % (name, json_from_array(_cell(array, row))) for name, array in names),
            asked,
        )
        for row, position in enumerate(group.positions.tolist())
    ]


def read(lines: bytes, part: int) -> Answers:
    """The answers to a part's rows, whatever their order.

    Raises:
        WireError: a line is no answer, or one to another part's row.
    """
    found: dict[int, Mapping[str, msgspec.Raw]] = {}
    failed: dict[int, tuple[str, str]] = {}
    for line in lines.splitlines():
        answer: _Answer = parse(line, _Answer)
        if answer.row is None or answer.row[0] != part:
            raise WireError(f"An answer among those of part {part} is to another row: {line[:200]!r}.")
        if answer.outputs is None:
            failed[answer.row[1]] = (answer.code, answer.error)
        else:
            found[answer.row[1]] = answer.outputs
    return Answers(found, failed)


def gathered(
    answers: Answers, first: int, rows: Sequence[int], specs: Sequence[TensorSpec]
) -> tuple[list[Answered], list[Failure]]:
    """The answers to some rows of a batch, as arrays.

    Args:
        first: The number within the part of the batch's first row.
        rows: Numbers within the batch.

    Raises:
        WireError: a row has no answer, or its answer lacks an output.
    """
    silent = [row for row in rows if first + row not in answers.found and first + row not in answers.failed]
    if silent:
        raise WireError(f"{len(silent)} rows have no answer, the first is row {first + silent[0]} of its part.")
    failures = [Failure(row, *answers.failed[first + row]) for row in rows if first + row in answers.failed]
    good = [row for row in rows if first + row in answers.found]
    if not good:
        return [], failures
    arrays = {spec.name: _column([answers.found[first + row] for row in good], spec) for spec in specs}
    return [Answered(good, arrays)], failures


def _column(answers: Sequence[Mapping[str, msgspec.Raw]], spec: TensorSpec) -> Array:
    try:
        cells = [bytes(answer[spec.name]) for answer in answers]
    except KeyError:
        raise WireError(f"An answer has no output {spec.name!r}.") from None
    try:
        return array_from_json(b"[%b]" % b",".join(cells), spec.numpy_dtype, spec.name)
    except WireError:
        rows = [array_from_json(cell, spec.numpy_dtype, spec.name) for cell in cells]
    column: Any = np.empty(len(rows), object)  # answers of several shapes
    column[:] = rows
    return column  # type: ignore[no-any-return]


def _cell(array: Array, row: int) -> Array:
    # By a slice: an index into text gives the text itself instead of an array.
    return array[row : row + 1].reshape(array.shape[1:])
