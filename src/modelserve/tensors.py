"""What goes into a model and what comes out: names, dtypes, shapes, and the check of a caller's inputs.

    arrays, lists, DataFrames, dicts ──Signature.check──► Checked(tensors, rows, single)

A check never loses information in silence: values that would change on the way to the model's dtype are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from modelserve.errors import SignatureError

Array: TypeAlias = npt.NDArray[Any]
Tensors: TypeAlias = Mapping[str, Array]

#: numpy's name of each dtype ⇄ the Open Inference Protocol's. "string" is text of any length.
OIP_DATATYPES: Mapping[str, str] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    Attributes:
        dtype: A numpy name such as "float32", or "string".
        shape: One entry per axis: a size, or a name for an axis of any size. Axes of one name have one size
            within a request; the first axis of a model that takes batches is named "batch".
        columns: For a table given as one tensor of shape (batch, len(columns)): its column names, in order.
        allows_nan: Whether the source takes NaN here.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    columns: tuple[str, ...] = ()
    allows_nan: bool = True

    def __post_init__(self) -> None:
        if self.dtype not in OIP_DATATYPES:
            raise SignatureError(
                f"Tensor {self.name!r} has dtype {self.dtype!r}; the dtypes are {', '.join(OIP_DATATYPES)}."
            )
        if not all(isinstance(size, str) or (isinstance(size, int) and size >= 0) for size in self.shape):
            raise SignatureError(
                f"Tensor {self.name!r} has shape {self.shape}; each axis is a size from 0 up, or a name such as "
                "'batch' where any size will do."
            )

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype of arrays that hold this tensor; text is held as objects of type str."""
        return np.dtype(object if self.dtype == "string" else self.dtype)

    @property
    def is_batched(self) -> bool:
        """Whether the first axis can be of any size."""
        return bool(self.shape) and isinstance(self.shape[0], str)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(str(size) for size in self.shape)}]"


class Checked(NamedTuple):
    """Inputs that fit: C-contiguous arrays by input name, in the signature's order.

    `rows` is the size of the batch axis (1 where there is none); `single` says that the caller left it out.
    """

    tensors: dict[str, Array]
    rows: int
    single: bool


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives. `primary` names the output that `predict` returns."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    primary: str = ""
    _sole: _Sole | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if not self.inputs or not self.outputs:
            raise SignatureError("A signature needs at least one input and one output.")
        for specs in (self.inputs, self.outputs):
            names = [spec.name for spec in specs]
            if len(set(names)) != len(names):
                raise SignatureError(f"Names must differ from each other, got {names}.")
        if not self.primary:
            object.__setattr__(self, "primary", self.outputs[0].name)
        self.output(self.primary)
        object.__setattr__(self, "_sole", _Sole.of(self.inputs))

    @property
    def is_batched(self) -> bool:
        """Whether rows can be joined and split along a first axis that all inputs and outputs share."""
        first = {spec.shape[0] if spec.shape else None for spec in (*self.inputs, *self.outputs)}
        return len(first) == 1 and isinstance(first.pop(), str)

    def output(self, name: str) -> TensorSpec:
        """The output called `name`.

        Raises:
            SignatureError: there is none.
        """
        for spec in self.outputs:
            if spec.name == name:
                return spec
        raise SignatureError(
            f"There is no output {name!r}; the outputs are {', '.join(spec.name for spec in self.outputs)}."
        )

    def check(self, inputs: Any) -> Checked:
        """Arrays that fit the model, from whatever the caller has.

        Args:
            inputs: For a model of one input an array, nested lists, a DataFrame, or anything numpy can read
                (a torch tensor on the CPU, say). For several: a mapping by name, a tuple in the signature's order,
                or a DataFrame whose columns carry the inputs' names. One row may come without the batch axis.

        Raises:
            SignatureError: names, shapes or values do not fit; the message names the input.
        """
        sole = self._sole
        # The everyday case, an array exactly as wanted, is answered before anything else is looked at.
        if sole is not None and type(inputs) is np.ndarray and sole.fits(inputs):
            return Checked({sole.name: inputs}, inputs.shape[0], False)
        return _check(self, inputs)


class _Sole(NamedTuple):
    """The only input of a model, in the form in which an array is compared with it fastest."""

    name: str
    dtype: np.dtype[Any]
    tail: tuple[int, ...]

    @classmethod
    def of(cls, inputs: Sequence[TensorSpec]) -> _Sole | None:
        spec = inputs[0]
        fixed = tuple(size for size in spec.shape[1:] if isinstance(size, int))
        plain = len(inputs) == 1 and spec.is_batched and spec.allows_nan and spec.dtype != "string"
        return cls(spec.name, spec.numpy_dtype, fixed) if plain and len(fixed) == len(spec.shape) - 1 else None

    def fits(self, array: Array) -> bool:
        return (
            array.dtype is self.dtype
            and array.shape[1:] == self.tail
            and array.size > 0
            and array.ndim > len(self.tail)
            and array.flags.c_contiguous
        )


def _check(signature: Signature, inputs: Any) -> Checked:
    given = _by_name(signature, inputs)
    sizes: dict[str, tuple[str, int]] = {}
    tensors: dict[str, Array] = {}
    singles = set()
    for spec in signature.inputs:
        array, single = _fit(spec, given[spec.name])
        _match_axes(spec, array, sizes)
        tensors[spec.name] = array
        if spec.is_batched:
            singles.add(single)
    if len(singles) > 1:
        raise SignatureError("Some inputs have the batch axis and some do not; give all of them with it, or none.")
    first = signature.inputs[0]
    rows = tensors[first.name].shape[0] if first.is_batched else 1
    return Checked(tensors, rows, singles == {True})


def _by_name(signature: Signature, inputs: Any) -> dict[str, Any]:
    specs = signature.inputs
    names = [spec.name for spec in specs]
    if _is_frame(inputs):
        return _from_frame(specs, inputs)
    if isinstance(inputs, Mapping):
        return _from_mapping(names, inputs)
    if len(specs) == 1:
        return {names[0]: inputs}
    if isinstance(inputs, tuple):
        if len(inputs) != len(specs):
            raise SignatureError(
                f"The model takes {len(specs)} inputs ({', '.join(names)}), got a tuple of {len(inputs)}."
            )
        return dict(zip(names, inputs, strict=True))
    raise SignatureError(
        f"The model takes {len(specs)} inputs ({', '.join(names)}), got one {type(inputs).__name__}. "
        f"Give a dict: {{{', '.join(f'{name!r}: ...' for name in names)}}}."
    )


def _from_mapping(names: Sequence[str], inputs: Mapping[Any, Any]) -> dict[str, Any]:
    unknown = [name for name in inputs if name not in names]
    missing = [name for name in names if name not in inputs]
    if unknown or missing:
        wrong = [f"unknown: {', '.join(map(repr, unknown))}"] if unknown else []
        wrong += [f"missing: {', '.join(map(repr, missing))}"] if missing else []
        raise SignatureError(
            f"The inputs are {', '.join(map(repr, names))}; {'; '.join(wrong)}. Use exactly the model's names."
        )
    return dict(inputs)


def _is_frame(inputs: Any) -> bool:
    # Recognised by what it can do, so that neither pandas nor polars is imported.
    return hasattr(inputs, "columns") and hasattr(inputs, "__getitem__") and not isinstance(inputs, Mapping)


def _from_frame(specs: Sequence[TensorSpec], frame: Any) -> dict[str, Any]:
    found = [str(name) for name in frame.columns]
    if len(specs) == 1 and not specs[0].columns:
        return {specs[0].name: frame.to_numpy()}
    wanted = list(specs[0].columns) if len(specs) == 1 else [spec.name for spec in specs]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise SignatureError(
            f"The table lacks the column(s) {', '.join(map(repr, missing))}; it has {', '.join(map(repr, found))}."
        )
    twice = [name for name in wanted if found.count(name) > 1]
    if twice:
        raise SignatureError(f"The table has several columns {twice[0]!r}. Keep the one that is meant.")
    originals = dict(zip(found, frame.columns, strict=True))
    picked = [frame[originals[name]].to_numpy() for name in wanted]
    if len(specs) == 1:
        return {specs[0].name: _side_by_side(specs[0], picked)}
    return {
        spec.name: array.reshape(-1, 1) if len(spec.shape) == 2 else array
        for spec, array in zip(specs, picked, strict=True)
    }


def _side_by_side(spec: TensorSpec, columns: Sequence[Array]) -> Array:
    if len({column.dtype for column in columns}) > 1 and columns[0].size:
        # Joined as they are, numpy would find them a common dtype, and round large whole numbers beside fractions.
        columns = [
            _as_dtype(replace(spec, name=name), column, typed=True)
            for name, column in zip(spec.columns, columns, strict=True)
        ]
    return np.stack(columns, axis=1)


def _fit(spec: TensorSpec, value: Any) -> tuple[Array, bool]:
    array = _as_array(spec, value)
    single = spec.is_batched and array.ndim == len(spec.shape) - 1
    if single:
        array = array[np.newaxis]
    if array.ndim != len(spec.shape):
        raise SignatureError(
            f"Input {spec.name!r} must be {spec}, got shape {array.shape}: {len(spec.shape)} axes are wanted."
        )
    if array.size == 0:
        raise SignatureError(f"Input {spec.name!r} is empty, shape {array.shape}. Give at least one row.")
    array = np.asarray(_as_dtype(spec, array, typed=hasattr(value, "dtype")), order="C")
    if not spec.allows_nan and array.dtype.kind == "f" and np.isnan(array).any():
        row = int(np.argwhere(np.isnan(array))[0][0])
        raise SignatureError(
            f"Input {spec.name!r} holds NaN (first in row {row}), which this model cannot take. "
            "Fill or drop those rows first."
        )
    return array, single


def _as_array(spec: TensorSpec, value: Any) -> Array:
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
            raise SignatureError(
                f"Input {spec.name!r} has masked values, which no model takes. Fill them with .filled(value)."
            )
        return value
    # As numpy's own text, what ends in NUL would lose it, and a number among the words would become one.
    kind = object if spec.dtype == "string" and not hasattr(value, "dtype") else None
    try:
        array = np.asarray(value, dtype=kind)
    except (ValueError, TypeError, RuntimeError) as error:
        raise SignatureError(
            f"Input {spec.name!r} must be {spec}; the {type(value).__name__} given cannot be read as one array "
            f"({error}). Rows must all have the same length."
        ) from error
    return array


def _as_dtype(spec: TensorSpec, array: Array, *, typed: bool) -> Array:
    want = spec.numpy_dtype
    if spec.dtype == "string":
        return _as_text(spec, array)
    if array.dtype == want:
        return array
    if array.dtype.kind == "O":
        array = _unbox(spec, array)
    if array.dtype.kind not in "biuf" or (array.dtype.kind != "b") == (want.kind == "b"):
        raise SignatureError(f"Input {spec.name!r} must be {want.name}, got {array.dtype.name}.")
    with np.errstate(all="ignore"):
        cast = array.astype(want)
        if not _never_rounds(array.dtype, want) and not _same_values(array, cast, typed=typed):
            raise SignatureError(
                f"Input {spec.name!r} must be {want.name}, got {array.dtype.name} whose values would change on the "
                f"way. Convert it with .astype({want.name!r}) if that is meant."
            )
    return cast


def _as_text(spec: TensorSpec, array: Array) -> Array:
    if array.dtype.kind in "UT":
        return array.astype(object)
    if array.dtype.kind == "O" and all(isinstance(item, str) for item in array.flat):
        return array
    odd = next((item for item in array.flat if not isinstance(item, str)), None)
    hint = " Rows must all have the same length." if isinstance(odd, list | tuple) else ""
    raise SignatureError(f"Input {spec.name!r} must be text, got {type(odd).__name__} {odd!r}.{hint}")


def _unbox(spec: TensorSpec, array: Array) -> Array:
    """Python's own numbers as numpy's; None is a missing number, and text is none even where it looks like one."""
    items = array.ravel().tolist()
    is_float = spec.numpy_dtype.kind == "f"
    never = (str, bytes) if spec.dtype == "bool" else (str, bytes, bool, np.bool_)
    try:
        odd = next((item for item in items if isinstance(item, never)), None)
        if odd is not None:
            raise TypeError(f"found {type(odd).__name__} {odd!r}")
        numbers = np.asarray(items, dtype=np.float64 if is_float else None).reshape(array.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise SignatureError(
            f"Input {spec.name!r} must be {spec}; the values given are not all numbers that fit ({error}). "
            "Rows must all have the same length."
        ) from error
    pairs = zip(items, numbers.ravel().tolist(), strict=True)
    if is_float and any(isinstance(item, int | np.integer) and int(item) != number for item, number in pairs):
        raise SignatureError(
            f"Input {spec.name!r} must be {spec.dtype}, got whole numbers that it would round. "
            "Convert them with float() if that is meant."
        )
    return numbers


def _never_rounds(given: np.dtype[Any], want: np.dtype[Any]) -> bool:
    # numpy calls 64-bit integers to float64 safe, although it rounds above 2**53.
    return np.can_cast(given, want, "safe") and not (given.kind in "iu" and given.itemsize == 8 and want.kind == "f")


def _same_values(array: Array, cast: Array, *, typed: bool) -> bool:
    if array.dtype.kind == "f" and cast.dtype.kind == "f":
        # Python's own floats carry no promise of 64 bits: only an overflow changes them.
        if not typed:
            return bool(np.array_equal(np.isfinite(array), np.isfinite(cast)))
    elif not (_within(array, cast.dtype) and _within(cast, array.dtype)):
        return False
    back = cast.astype(array.dtype)
    return bool(np.array_equal(back, array, equal_nan=array.dtype.kind == "f"))


def _within(values: Array, dtype: np.dtype[Any]) -> bool:
    """Whether `dtype` reaches far enough. A cast there and back does not tell: it wraps around twice."""
    if dtype.kind not in "iu":
        return True
    bounds = np.iinfo(dtype)
    # As Python's numbers, which compare exactly whatever their kinds.
    return bool(bounds.min <= values.min().item() and values.max().item() <= bounds.max)


def _match_axes(spec: TensorSpec, array: Array, sizes: dict[str, tuple[str, int]]) -> None:
    for axis, (want, got) in enumerate(zip(spec.shape, array.shape, strict=True)):
        if isinstance(want, str):
            owner, size = sizes.setdefault(want, (spec.name, got))
            if size != got:
                raise SignatureError(
                    f"Input {spec.name!r} has {got} along {want!r} (axis {axis}), but {owner!r} has {size}."
                )
        elif want != got:
            raise SignatureError(
                f"Input {spec.name!r} must be {spec}, got shape {array.shape}: axis {axis} must be {want}."
            )
