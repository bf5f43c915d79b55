"""JSON by rows and columns: TensorFlow Serving's and Vertex AI's shapes, and those of MLflow.

{"instances": [row, ...]}              {"predictions": [answer, ...]}
{"inputs": tensor or {name: tensor}}   the same
{"dataframe_split": {"columns": [...], "data": [[...], ...]}}
{"dataframe_records": [{column: value, ...}, ...]}

"parameters" (or MLflow's "params") may hold {"outputs": [names]}: then each prediction is an object by name.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from modelserve.errors import WireError
from modelserve.runtime.server.formats.question import Described, Question, known_outputs, question
from modelserve.runtime.server.formats.table import Table, table_of_records, table_of_rows
from modelserve.runtime.server.formats.values import array_from_json, json_from_array, parse
from modelserve.runtime.server.http.messages import Response
from modelserve.tensors import Array, Checked, Signature

SHAPES = ("instances", "inputs", "dataframe_split", "dataframe_records")
_NONE = msgspec.Raw()


class _Split(msgspec.Struct):
    columns: list[Any] | None = None
    data: list[Any] = msgspec.field(default_factory=list)
    index: list[Any] | None = None


class _Body(msgspec.Struct):
    instances: msgspec.Raw = _NONE
    inputs: msgspec.Raw = _NONE
    dataframe_split: _Split | None = None
    dataframe_records: list[Any] | None = None
    parameters: dict[str, Any] | None = None
    params: dict[str, Any] | None = None
    signature_name: str | None = None


def read(body: bytes | memoryview, model: Described) -> Question[Response]:
    """The question in a body of one of the shapes above.

    Raises:
        WireError, SignatureError: it has none, or does not fit the model; the message names the field.
    """
    given: _Body = parse(body, _Body)
    checked = model.signature.check(_inputs(given, model.signature))
    names = _outputs(given.parameters or given.params or {}, model.signature)
    return question(checked, names, lambda arrays: write(arrays, names, single=False))


def is_oip(body: bytes | memoryview) -> bool:
    """Whether this is an infer request of the Open Inference Protocol: its "inputs" are a list of named tensors."""
    start = bytes(body[:4096])
    if b'"datatype"' not in start:
        return False
    given: _Body = parse(body, _Body)
    raw = bytes(given.inputs).lstrip(b" \t\r\n[")
    return raw.startswith(b"{") and b'"datatype"' in raw


def read_instance(line: bytes, model: Described) -> Question[Response]:
    """The question in one instance by itself, as a line of JSON lines has it.

    Raises:
        WireError, SignatureError: as `read`.
    """
    checked = model.signature.check(_instances(b"[%b]" % line, model.signature))
    return question(_one_row(checked), (), lambda arrays: write(arrays, (), single=True))


def write(arrays: dict[str, Array], names: tuple[str, ...], *, single: bool) -> Response:
    """Predictions by row; for one instance by itself its one prediction."""
    if not names:
        (array,) = arrays.values()
        content = json_from_array(_row(array, 0) if single else array)
        return Response(content if single else b'{"predictions":%b}' % content)
    rows = max((array.shape[0] for array in arrays.values() if array.ndim), default=1)
    records = [b"{%b}" % b",".join(_cells(arrays, row)) for row in range(rows)]
    return Response(b'{"predictions":[%b]}' % b",".join(records))


def _cells(arrays: dict[str, Array], row: int) -> list[bytes]:
    return [b"%b:%b" % (orjson.dumps(name), json_from_array(_row(array, row))) for name, array in arrays.items()]


def _row(array: Array, row: int) -> Array:
    # By a slice: an index into text gives the text itself instead of an array.
    return array[row : row + 1].reshape(array.shape[1:]) if array.ndim else array


def _inputs(given: _Body, signature: Signature) -> Any:
    present = [name for name in SHAPES if _is_given(getattr(given, name))]
    if len(present) != 1:
        found = ", ".join(present) or "none"
        raise WireError(f"The body must have exactly one of {', '.join(map(repr, SHAPES))}; it has {found}.")
    if present == ["instances"]:
        return _instances(bytes(given.instances), signature)
    if present == ["inputs"]:
        return _tensors(bytes(given.inputs), signature)
    if given.dataframe_split is not None:
        split = given.dataframe_split
        if split.columns is None:
            return split.data
        return _as_frame(table_of_rows(split.columns, split.data), signature)
    assert given.dataframe_records is not None
    return _as_frame(table_of_records(given.dataframe_records), signature)


def _is_given(value: Any) -> bool:
    return value is not None and not (isinstance(value, msgspec.Raw) and not len(value))


def _instances(raw: bytes, signature: Signature) -> Any:
    first = raw.lstrip(b" \t\r\n[")[:1]
    sole = signature.inputs[0] if len(signature.inputs) == 1 else None
    if sole is not None and first != b"{":
        return array_from_json(raw, sole.numpy_dtype, sole.name)
    rows = parse(raw, list[Any])
    if not rows:
        raise WireError("'instances' is empty. Send at least one.")
    if not all(isinstance(row, dict) for row in rows):
        names = ", ".join(repr(spec.name) for spec in signature.inputs)
        raise WireError(f"Each of 'instances' must be an object with the inputs {names}.")
    if sole is not None and sole.columns:
        return table_of_records(rows)
    for index, row in enumerate(rows):
        if set(row) != set(rows[0]):
            raise WireError(f"Instance {index} has the inputs {sorted(row)}, the first one {sorted(rows[0])}.")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _tensors(raw: bytes, signature: Signature) -> Any:
    specs = {spec.name: spec for spec in signature.inputs}
    if raw.lstrip()[:1] == b"{":
        by_name = parse(raw, dict[str, msgspec.Raw])
        return {
            name: array_from_json(value, specs[name].numpy_dtype, name) if name in specs else parse(bytes(value))
            for name, value in by_name.items()
        }
    if len(specs) == 1:
        (spec,) = specs.values()
        return array_from_json(raw, spec.numpy_dtype, spec.name)
    return parse(raw)


def _as_frame(table: Table, signature: Signature) -> Any:
    """A model without names for its columns takes the table as it stands; one with, by name."""
    return table if len(signature.inputs) > 1 or signature.inputs[0].columns else table.to_numpy()


def _outputs(parameters: dict[str, Any], signature: Signature) -> tuple[str, ...]:
    names = parameters.get("outputs")
    if names is None:
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise WireError(f"parameters.outputs must be a list of at least one output's name, got {names!r}.")
    return known_outputs(signature, names)


def _one_row(checked: Checked) -> Checked:
    if checked.rows != 1:
        raise WireError(f"A line holds one instance; this one has {checked.rows} rows. Write each on its own line.")
    return checked
