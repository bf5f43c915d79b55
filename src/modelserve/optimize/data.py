"""The user's rows: checked against the model, and dealt out once, the same way every time.

rows ──► fit      what passes look at
     ──► choose   what candidates are compared on
     └─► judge    what nobody has looked at: the verdict
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelserve.bundle import Bundle
from modelserve.errors import PlanError, SignatureError
from modelserve.tensors import Array, Signature, Tensors

_FIT_SHARE, _FIT_MOST = 0.2, 1000
_CHOOSE_SHARE, _CHOOSE_MOST = 0.2, 2000
_BATCH = 50


@dataclass(frozen=True, slots=True)
class Rows:
    """Inputs, and their labels where there are any."""

    tensors: Tensors
    labels: Array | None = None

    def __len__(self) -> int:
        return int(next(iter(self.tensors.values())).shape[0])

    def take(self, index: Array) -> Rows:
        """These rows."""
        tensors = {name: np.ascontiguousarray(array[index]) for name, array in self.tensors.items()}
        return Rows(tensors, None if self.labels is None else self.labels[index])

    def batches(self, size: int = _BATCH) -> Iterator[dict[str, Array]]:
        """The inputs in batches."""
        for start in range(0, len(self), size):
            yield {name: array[start : start + size] for name, array in self.tensors.items()}

    @property
    def digest(self) -> str:
        """sha256 of the content."""
        found = hashlib.sha256()
        arrays = {**self.tensors, **({} if self.labels is None else {"": self.labels})}
        for name, array in arrays.items():
            found.update(f"{name} {array.dtype.str} {array.shape}".encode())
            found.update(repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes())
        return found.hexdigest()


@dataclass(frozen=True, slots=True)
class Dealt:
    """The three hands."""

    fit: Rows
    choose: Rows
    judge: Rows


def rows_of(bundle: Bundle, data: Any, what: str) -> Rows:
    """Inputs, or (inputs, labels), as rows that fit the model.

    Raises:
        PlanError: they do not fit, there are none, or labels and inputs differ in number.
    """
    if data is None:
        raise PlanError(
            f"{what} is missing: give rows that the model was not trained on, with labels if there are any."
        )
    if not bundle.signature.is_batched:
        raise PlanError("This model has no batch axis, so that there are no rows to judge it by.")
    inputs, labels = _split(bundle.signature, data)
    try:
        tensors = bundle.signature.check(inputs).tensors
    except SignatureError as error:
        raise PlanError(f"{what} does not fit the model: {error}") from error
    rows = Rows(tensors)
    if labels is None:
        return rows
    truth = np.asarray(labels)
    if truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth.reshape(-1)
    if truth.shape[:1] != (len(rows),):
        raise PlanError(f"{what} has {len(rows)} rows of inputs and {truth.shape[0] if truth.ndim else 0} labels.")
    if truth.dtype.kind == "f" and np.isnan(truth).any():
        raise PlanError(f"{what} has labels that are NaN (first in row {int(np.argmax(np.isnan(truth)))}). Drop them.")
    return Rows(tensors, truth.astype(object) if truth.dtype.kind == "U" else truth)


def deal(rows: Rows) -> Dealt:
    """Shuffle by a fixed seed and deal."""
    order = np.random.default_rng(0).permutation(len(rows))
    fit = max(1, min(_FIT_MOST, int(len(rows) * _FIT_SHARE)))
    choose = max(1, min(_CHOOSE_MOST, int(len(rows) * _CHOOSE_SHARE)))
    first, second, third = np.split(order, [fit, fit + choose])
    # One row is in every hand when there are too few; the verdict says then that they are.
    return Dealt(
        rows.take(first), rows.take(second if len(second) else first), rows.take(third if len(third) else first)
    )


def judged_share(rows: int) -> int:
    """How many of so many rows are left for the verdict."""
    return rows - max(1, min(_FIT_MOST, int(rows * _FIT_SHARE))) - max(1, min(_CHOOSE_MOST, int(rows * _CHOOSE_SHARE)))


def rows_for(judged: int) -> int:
    """How many rows it takes so that `judged` of them are left for the verdict."""
    low, high = judged, judged * 2 + 10
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if judged_share(middle) < judged else (low, middle)
    return low


def check_labels(labels: Array, answer: Array, classes: Array | None) -> None:
    """Refuse labels of which the model knows nothing.

    Args:
        answer: What the original answers to their rows.
        classes: Every label that it can answer; None where it does not say.

    Raises:
        PlanError: some label is none that the model can answer.
    """
    if (labels.dtype.kind == "O") != (answer.dtype.kind == "O"):
        raise PlanError(f"The labels are of {labels.dtype}, the model answers {answer.dtype}. Encode them alike.")
    if classes is None:
        return
    unseen = [label for label in dict.fromkeys(labels.tolist()) if label not in set(classes.tolist())]
    if unseen:
        raise PlanError(
            f"The data has labels that the model cannot answer: {unseen[:5]}. It answers {classes.tolist()[:12]}."
        )


def _split(signature: Signature, data: Any) -> tuple[Any, Any]:
    if isinstance(data, tuple):
        if len(data) != 2:
            raise PlanError(f"data is inputs, or (inputs, labels); got a tuple of {len(data)}.")
        if data[1] is None:
            return data[0], None
        return data
    if isinstance(data, list) and len(signature.inputs) == 1 and not data:
        raise PlanError("data is empty. Give rows that the model was not trained on.")
    return data, None
