"""Any framework's model becomes a bundle, and proves that it is the same model.

source ──detect──► Converter.drafts ──► graph ──compare with the source──► certificate ──► Bundle
▲                              │
└───── the next route ◄── it differs
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modelserve.bundle import Bundle, LiveCallable, write
from modelserve.convert import edges
from modelserve.convert.contract import Converter, Draft, Reference
from modelserve.convert.detect import find_converter, open_file
from modelserve.convert.graph import clean, rename
from modelserve.errors import BundleError, ConversionError, InputError, SignatureError, UnfaithfulError
from modelserve.fidelity import FidelityReport, Sample, Tolerance, compare, default_tolerance, rows_are_independent
from modelserve.session import load
from modelserve.tensors import Array, Signature, Tensors

__all__ = ["Converter", "Draft", "Reference", "Tolerance", "convert"]


def convert(
    source: Any,
    example: Any = None,
    *,
    signature: Signature | None = None,
    inputs: Any = None,
    tolerance: Tolerance | float | None = None,
    into: Path | None = None,
) -> Bundle | LiveCallable:
    """Make a trained model portable, and compare it with its source.

    Args:
        source: A model of a supported framework, or the path of a model file.
        example: Inputs that it takes, at least one row; more rows make a better comparison.
        signature: Names for its inputs and outputs, where the source's own will not do.
        tolerance: How far numbers may be from the source's; a number allows that much in the outputs' units.
        into: The folder to create; by default the bundle lies under `MODELSERVE_HOME`.

    Raises:
        UnsupportedSourceError, MissingExtraError, ExampleRequiredError: it cannot be tried.
        UnfaithfulError: every route gave a model that does not answer as its source does.
    """
    if inputs is not None:
        raise InputError(f"inputs= takes a description of preprocessing, which {type(inputs).__name__} is not.")
    if isinstance(source, str | Path):
        source = open_file(Path(source))
    converter = find_converter(source)
    refusals: list[ConversionError] = []
    for make in converter.drafts(source, example):
        try:
            draft = make()
            if signature is not None:
                draft = _renamed(draft, signature)
            return _certified(draft, _as_tolerance(tolerance), into)
        except ConversionError as refusal:
            refusals.append(refusal)
    raise _all_refused(source, refusals)


def _certified(draft: Draft, asked: Tolerance | None, into: Path | None) -> Bundle:
    """The draft as a bundle, if it answers as its source does."""
    clean(draft.model)
    try:
        session = load(draft.model.SerializeToString())
    except BundleError as error:
        raise ConversionError(f"The converted graph is not valid: {error}") from error
    names = [spec.name for spec in draft.signature.outputs]

    def candidate(tensors: Tensors) -> Mapping[str, Array]:
        try:
            return dict(zip(names, session.run(names, dict(tensors)), strict=True))
        except Exception as error:  # onnxruntime raises classes of its C++ side without a common root
            raise ConversionError(str(error)) from error

    try:
        wanted = draft.reference(draft.example)
    except Exception as error:
        raise ConversionError(f"The source refuses the example itself: {type(error).__name__}: {error}") from error
    tolerance = asked or draft.tolerance or default_tolerance(list(wanted.values()))
    versions = {**draft.origin.versions, "opset": _opset(draft)}

    def compared(samples: Iterable[Sample]) -> FidelityReport:
        return compare(
            draft.reference, candidate, samples, tolerance=tolerance, decisions=draft.decisions, versions=versions
        )

    report = compared(edges.samples(draft.signature, draft.example))
    if not report.is_faithful:
        raise UnfaithfulError(report.reason)
    signature, reports = _try_nan(draft, compared)
    # Frameworks differ in what infinity minus infinity or the larger of NaN and 0 is: that is written down, and
    # refuses nothing.
    infinity = compared(edges.infinity_samples(draft.signature, draft.example))
    reports += [infinity] if infinity.rows else []
    return write(
        draft.model,
        signature=signature,
        origin=draft.origin,
        lineage=draft.steps,
        example=draft.example,
        rows_independent=rows_are_independent(candidate, signature, draft.example),
        reports=[report.to_json(), *(one.to_json() for one in reports)],
        into=into,
    )


def _try_nan(
    draft: Draft, compared: Callable[[Iterable[Sample]], FidelityReport]
) -> tuple[Signature, list[FidelityReport]]:
    """The signature, saying of each input whether NaN may stand there, and what was found on trying.

    Where the source refuses NaN, or the portable model answers it otherwise, the input refuses it, too.
    """
    inputs, reports = [], []
    for spec in draft.signature.inputs:
        if not spec.dtype.startswith("float") or not spec.is_batched:
            inputs.append(spec)
            continue
        report = compared(edges.nan_samples(spec, draft.example))
        holds_nan = bool(np.isnan(draft.example[spec.name]).any())
        if not report.is_faithful and report.rows and holds_nan:
            raise UnfaithfulError(report.reason)
        # A source may take NaN in some columns only, and so refuse these rows; the example's it has answered.
        inputs.append(replace(spec, allows_nan=report.is_faithful or (holds_nan and not report.rows)))
        if report.rows:
            reports.append(report)
    return replace(draft.signature, inputs=tuple(inputs)), reports


def _renamed(draft: Draft, wanted: Signature) -> Draft:
    """The draft under the caller's names."""
    pairs = []
    for old, new in ((draft.signature.inputs, wanted.inputs), (draft.signature.outputs, wanted.outputs)):
        if len(old) < len(new) or any(a.dtype != b.dtype for a, b in zip(old, new, strict=False)):
            raise SignatureError(
                f"The signature given says {', '.join(f'{spec.name}: {spec}' for spec in new)}; the model has "
                f"{', '.join(f'{spec.name}: {spec}' for spec in old)}."
            )
        pairs.append({a.name: b.name for a, b in zip(old, new, strict=False)})
    to_new_in, to_new_out = pairs
    to_old_in = {new: old for old, new in to_new_in.items()}
    rename(draft.model, {**to_new_in, **to_new_out})
    reference = draft.reference

    def renamed(tensors: Tensors) -> Mapping[str, Array]:
        answers = reference({to_old_in[name]: array for name, array in tensors.items()})
        return {to_new_out.get(name, name): array for name, array in answers.items()}

    inputs = tuple(replace(spec, name=to_new_in[spec.name]) for spec in draft.signature.inputs)
    outputs = tuple(replace(spec, name=to_new_out.get(spec.name, spec.name)) for spec in draft.signature.outputs)
    primary = wanted.primary if wanted.primary in {spec.name for spec in outputs} else outputs[0].name
    return replace(
        draft,
        signature=Signature(inputs, outputs, primary),
        example={to_new_in[name]: array for name, array in draft.example.items()},
        reference=renamed,
        decisions=frozenset(to_new_out.get(name, name) for name in draft.decisions),
    )


def _as_tolerance(tolerance: Tolerance | float | None) -> Tolerance | None:
    if tolerance is None or isinstance(tolerance, Tolerance):
        return tolerance
    if not isinstance(tolerance, int | float) or not tolerance >= 0:
        raise InputError(f"tolerance must be a number from 0 up or a Tolerance, got {tolerance!r}.")
    return Tolerance(float(tolerance), 0.0)


def _opset(draft: Draft) -> str:
    found = {entry.domain or "ai.onnx": entry.version for entry in draft.model.opset_import}
    return ", ".join(f"{domain} {number}" for domain, number in sorted(found.items()))


def _all_refused(source: Any, refusals: list[ConversionError]) -> ConversionError:
    kind = f"{type(source).__module__}.{type(source).__qualname__}"
    if len(refusals) == 1 and not isinstance(refusals[0], UnfaithfulError):
        return refusals[0]
    reasons = "\n".join(f"  route {number}: {refusal}" for number, refusal in enumerate(refusals, 1))
    unfaithful = any(isinstance(refusal, UnfaithfulError) for refusal in refusals)
    advice = (
        "If these differences do not matter, allow them with tolerance=; otherwise give more rows as example=, "
        "or report the model."
        if unfaithful
        else "Give the model in another form."
    )
    error = (UnfaithfulError if unfaithful else ConversionError)(
        f"{kind} could not be converted faithfully; {len(refusals)} route(s) were tried:\n{reasons}\n{advice}"
    )
    error.__cause__ = refusals[-1] if refusals else None
    return error
