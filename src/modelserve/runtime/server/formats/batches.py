"""Rows of a data set as JSON lines that say which row they are: what `modelserve.backend.jobs` describes.

lines ──► one request ──► an answer for each line
             │ refused
             └──► halves ──► halves ──► only the culprits' lines say why

They come as JSON lines, or as `{"instances": [line, ...]}` from a service that sends nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import msgspec
import orjson

from modelserve.errors import (
    InputError,
    ModelRunError,
    ModelServeError,
    OverloadedError,
    PoisonedRequestError,
    WireError,
)
from modelserve.runtime.server.formats.question import Described, Question, known_outputs, question
from modelserve.runtime.server.formats.values import array_from_json, json_from_array, parse
from modelserve.tensors import Array, Signature

_MARK = b'"$row"'
_SEEN_BYTES = 256
_TRIES = 100
#: Rows of one request.
MOST_ROWS = 256
# Of which a single row can be the cause; all else befalls the whole request.
_OF_A_ROW = (InputError, WireError, ModelRunError, PoisonedRequestError)

#: Asks the model the question that is found by a function of what the model takes.
Ask: TypeAlias = Callable[[Callable[[Described], Question[list[bytes]]]], Awaitable[list[bytes]]]


class _Line(msgspec.Struct, rename={"row": "$row"}):
    row: msgspec.Raw
    inputs: dict[str, msgspec.Raw]
    outputs: list[str] = msgspec.field(default_factory=list)


class _Marked(msgspec.Struct, rename={"row": "$row"}):
    row: msgspec.Raw = msgspec.Raw(b"null")


class _Instances(msgspec.Struct):
    instances: list[msgspec.Raw]


def is_row(line: bytes) -> bool:
    """Whether a line says which row it is."""
    return _MARK in line[:_SEEN_BYTES]


def in_instances(body: bytes | memoryview) -> list[bytes] | None:
    """The lines of a body of instances that say which rows they are; None where it is another one.

    Raises:
        WireError: it began like one.
    """
    start = bytes(body[:_SEEN_BYTES])
    if _MARK not in start or b'"instances"' not in start:
        return None
    given: _Instances = parse(body, _Instances)
    return [bytes(raw) for raw in given.instances]


async def answers(lines: Sequence[bytes], ask: Ask) -> list[bytes]:
    """An answer for each of the lines, in their order, without line breaks."""
    try:
        return await _patient(lines, ask)
    except ModelServeError as error:
        if len(lines) == 1 or not isinstance(error, _OF_A_ROW):
            return [_failure(line, error) for line in lines]
    half = len(lines) // 2
    return [*await answers(lines[:half], ask), *await answers(lines[half:], ask)]


def read(lines: Sequence[bytes], model: Described) -> Question[list[bytes]]:
    """The question in several lines at once.

    Raises:
        WireError, SignatureError: one of them does not fit the model, or they ask for different outputs.
    """
    found: list[_Line] = [parse(line, _Line) for line in lines]
    asked = found[0].outputs
    names = known_outputs(model.signature, asked)
    if any(line.outputs != asked for line in found):
        raise WireError("The lines ask for different outputs. Ask for the same in each.")
    checked = model.signature.check(_tensors(found, model.signature))
    if checked.rows != len(found):
        raise WireError(f"{len(found)} lines have {checked.rows} rows. Write each row on a line of its own.")
    return question(checked, names, lambda arrays: _written(found, arrays), is_alone=True)


async def _patient(lines: Sequence[bytes], ask: Ask) -> list[bytes]:
    """As `ask`; the sender waits for the whole answer anyway, and need not hear that much is under way."""
    for _ in range(_TRIES):
        try:
            return await ask(lambda model: read(lines, model))
        except OverloadedError as error:
            await asyncio.sleep(min(error.retry_after_s, 1.0))
    return await ask(lambda model: read(lines, model))


def _tensors(found: Sequence[_Line], signature: Signature) -> dict[str, Any]:
    specs = {spec.name: spec for spec in signature.inputs}
    for line in found:
        if line.inputs.keys() != specs.keys():
            raise WireError(f"A line has the inputs {sorted(line.inputs)}, the model takes {sorted(specs)}.")
    return {
        name: array_from_json(b"[%b]" % b",".join(bytes(line.inputs[name]) for line in found), spec.numpy_dtype, name)
        for name, spec in specs.items()
    }


def _written(found: Sequence[_Line], arrays: dict[str, Array]) -> list[bytes]:
    short = next((name for name, array in arrays.items() if not array.ndim or len(array) != len(found)), None)
    if short is not None:
        raise ModelRunError(f"Output {short!r} has shape {arrays[short].shape} for {len(found)} rows.")
    named = [(orjson.dumps(name), array) for name, array in arrays.items()]
    answers = []
    for index, line in enumerate(found):
        cells = (b"%b:%b" % (name, json_from_array(_cell(array, index))) for name, array in named)
        answers.append(b'{"$row":%b,"outputs":{%b}}' % (bytes(line.row), b",".join(cells)))
    return answers


def _cell(array: Array, index: int) -> Array:
    # By a slice: an index into text gives the text itself instead of an array.
    return array[index : index + 1].reshape(array.shape[1:])


def _failure(line: bytes, error: ModelServeError) -> bytes:
    try:
        row = bytes(parse(line, _Marked).row)
    except WireError:
        row = b"null"
    why = orjson.dumps({"error": str(error).encode("utf-8", "replace").decode(), "code": error.code})
    return b'{"$row":%b,%b' % (row, why[1:])
