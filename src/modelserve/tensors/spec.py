"""One input or output: its name, dtype and shape; and arrays that fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
