"""A draft becomes a bundle where it answers as its source does; what was tried is its certificate.

draft ──load──► answers ──compare with the source──► narrowed signature, reports ──► Bundle
                                 │ it differs
                                 └──► UnfaithfulError: the worst row, the first step that differs
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from modelserve.bundle import Bundle, write
from modelserve.convert import edges
from modelserve.convert.contract import Draft
from modelserve.convert.graph import clean
from modelserve.convert.locate import first_difference
from modelserve.convert.opened import opened
from modelserve.errors import ConversionError, UnfaithfulError
from modelserve.fidelity import (
    Answer,
    Comparison,
    FidelityReport,
    Sample,
    Tolerance,
    default_tolerance,
    rows_are_independent,
)
from modelserve.tensors import Array, Signature, Tensors, TensorSpec


def certified(
    draft: Draft, asked: Tolerance | None, into: Path | None, notes: Callable[[], Mapping[str, Any]]
) -> Bundle:
    """The draft as a bundle.

    Args:
        asked: The tolerance that the caller set.
        notes: Tells the way here when all is done, such as the routes that were refused; it joins the certificate.

    Raises:
        UnfaithfulError: it does not answer as its source does.
        ConversionError: it cannot be loaded, or the source itself refuses the example.
    """
    clean(draft.model)
    with opened(draft.model) as session:
        trial = _Trial(draft, _candidate(session, draft.signature), _tolerance(draft, asked))
        signature, reports = trial.run()
        return write(
            draft.model,
            signature=signature,
            origin=draft.origin,
            lineage=draft.steps,
            example=draft.example,
            rows_independent=rows_are_independent(trial.candidate, signature, draft.example),
            reports=[reports[0] | {"conversion": notes()}, *reports[1:], *draft.reports],
            into=into,
        )


@dataclass(frozen=True, slots=True)
class _Trial:
    """One draft on trial."""

    draft: Draft
    candidate: Answer
    tolerance: Tolerance

    def run(self) -> tuple[Signature, list[dict[str, Any]]]:
        """The signature, narrowed to what the source takes, and what was found; the first report decides."""
        main = self._comparison()
        for sample in edges.samples(self.draft.signature, self.draft.example):
            main.add(sample)
        signature = _narrowed(self.draft.signature, self.draft.example, main)
        self._believe(main)
        signature, nan = self._try_nan(signature)
        # Frameworks differ in what infinity minus infinity or the larger of NaN and 0 is: that is written down, and
        # refuses nothing.
        infinity = self._compared(edges.infinity_samples(self.draft.signature, self.draft.example))
        more = [*nan, *([infinity.to_json() | {"about": "infinity, which refuses nothing"}] if infinity.rows else [])]
        return signature, [main.report().to_json(), *more]

    def _believe(self, found: Comparison) -> None:
        report = found.report()
        if report.is_faithful:
            return
        where = ""
        if found.worst is not None and self.draft.stages is not None:
            where = first_difference(self.draft, found.worst[0], self.tolerance)
        raise UnfaithfulError(report.reason + where)

    def _try_nan(self, signature: Signature) -> tuple[Signature, list[dict[str, Any]]]:
        """The signature, saying of each input whether NaN may stand there, and what was found on trying.

        Where the source refuses NaN, or the portable model answers it otherwise, the input refuses it, too.
        """
        inputs, reports = [], []
        for spec in signature.inputs:
            if not (spec.dtype.startswith("float") and spec.is_batched and spec.allows_nan):
                inputs.append(spec)
                continue
            report = self._compared(edges.nan_samples(spec, self.draft.example))
            holds_nan = bool(np.isnan(self.draft.example[spec.name]).any())
            if not report.is_faithful and report.rows and holds_nan:
                raise UnfaithfulError(report.reason)
            # A source may take NaN in some columns only, and so refuse these rows; the example's it has answered.
            inputs.append(replace(spec, allows_nan=report.is_faithful or (holds_nan and not report.rows)))
            if report.rows:
                reports.append(report.to_json() | {"about": f"NaN in {spec.name!r}"})
        return replace(signature, inputs=tuple(inputs)), reports

    def _compared(self, samples: Iterable[Sample]) -> FidelityReport:
        found = self._comparison()
        for sample in samples:
            found.add(sample)
        return found.report()

    def _comparison(self) -> Comparison:
        draft = self.draft
        return Comparison(
            draft.reference,
            self.candidate,
            tolerance=self.tolerance,
            decisions=draft.decisions,
            versions={**draft.origin.versions, "opset": _opsets(draft)},
        )


def _candidate(session: Any, signature: Signature) -> Answer:
    names = [spec.name for spec in signature.outputs]

    def answer(tensors: Tensors) -> Mapping[str, Array]:
        try:
            return dict(zip(names, session.run(names, dict(tensors)), strict=True))
        except Exception as error:  # onnxruntime raises classes of its C++ side without a common root
            raise ConversionError(str(error)) from error

    return answer


def _tolerance(draft: Draft, asked: Tolerance | None) -> Tolerance:
    try:
        wanted = draft.reference(draft.example)
    except Exception as error:
        raise ConversionError(f"The source refuses the example itself: {type(error).__name__}: {error}") from error
    return asked or draft.tolerance or default_tolerance(list(wanted.values()))


def _narrowed(signature: Signature, example: Tensors, found: Comparison) -> Signature:
    """The signature, without the axes of any size whose other sizes the source itself refuses.

    Axes that it refuses one by one may have to change together: those of one size are tried so, and get one name.
    """
    if not _takes_batches(signature, example, found):
        signature = _renamed_axes(signature, _sizes(signature, example, batch=True))
    sizes = _sizes(signature, example, batch=False)
    alone = {name: size for name, size in sizes.items() if not _answers(signature, example, [name], found)}
    joined: dict[str, str] = {}
    for size in sorted(set(alone.values())):
        names = [name for name in alone if alone[name] == size]
        if len(names) > 1 and _answers(signature, example, names, found):
            joined |= dict.fromkeys(names, names[0])
    fixed = {name: size for name, size in alone.items() if name not in joined}
    return _renamed_axes(signature, {**joined, **fixed})


def _takes_batches(signature: Signature, example: Tensors, found: Comparison) -> bool:
    if not all(spec.is_batched for spec in signature.inputs):
        return True
    others = edges.batch_sizes(next(iter(example.values())).shape[0])
    return any(edges.batches_of(size) in found.report().tried for size in others)


def _answers(signature: Signature, example: Tensors, names: list[str], found: Comparison) -> bool:
    """Whether the source takes any other size of these axes; each that it takes is compared."""
    samples = list(edges.axis_samples(signature, example, names))
    taken = [found.add(sample) for sample in samples]
    return not taken or any(taken)


def _sizes(signature: Signature, example: Tensors, *, batch: bool) -> dict[str, int]:
    """The example's size of each axis of any size: of the first axes, or of all others."""
    first = {spec.shape[0] for spec in signature.inputs if spec.is_batched}
    return {
        size: example[spec.name].shape[at]
        for spec in signature.inputs
        for at, size in enumerate(spec.shape)
        if isinstance(size, str) and (size in first) == batch
    }


def _renamed_axes(signature: Signature, names: Mapping[str, str | int]) -> Signature:
    def renamed(spec: TensorSpec) -> TensorSpec:
        shape = tuple(names.get(size, size) if isinstance(size, str) else size for size in spec.shape)
        return replace(spec, shape=shape)

    return replace(
        signature, inputs=tuple(map(renamed, signature.inputs)), outputs=tuple(map(renamed, signature.outputs))
    )


def _opsets(draft: Draft) -> str:
    found = {entry.domain or "ai.onnx": entry.version for entry in draft.model.opset_import}
    return ", ".join(f"{domain} {number}" for domain, number in sorted(found.items()))
