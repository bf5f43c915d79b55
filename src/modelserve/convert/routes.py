"""One source, route by route, until a draft is believed.

source ──find_converter──► drafts ──override, image──► certified ──► Bundle
                              ▲                            │
                              └── the next route, then repairs ◄── refused
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from modelserve.bundle import Bundle
from modelserve.convert.certify import certified
from modelserve.convert.contract import Draft
from modelserve.convert.detect import find_converter
from modelserve.convert.images import ImageInput
from modelserve.convert.override import overridden
from modelserve.convert.pictured import pictured
from modelserve.convert.repairs import repairs
from modelserve.errors import ConversionError, ModelServeError, UnfaithfulError
from modelserve.fidelity import Tolerance
from modelserve.tensors import Array, Signature

_LONGEST_REASON = 500


class Images(NamedTuple):
    """Images for one input: its name, or None for the one that they fit."""

    name: str | None
    image: ImageInput
    rows: Array


class _Refusal(NamedTuple):
    route: str
    error: ConversionError


def portable(
    source: Any,
    example: Any,
    *,
    signature: Signature | None = None,
    tolerance: Tolerance | None = None,
    into: Path | None = None,
    images: Sequence[Images] = (),
    remarks: Mapping[str, Any] | None = None,
) -> Bundle:
    """The source as a bundle.

    Args:
        images: The preprocessing to build in; the example is what it makes of the images.
        remarks: What the certificate is to say besides; plain JSON.

    Raises:
        ConversionError: no route led there; each is named with its reason.
    """
    start = time.perf_counter()
    converter = find_converter(source, example)
    certify = partial(certified, asked=tolerance, into=into)
    attempt = _Attempt(partial(_as_asked, signature, images), certify, start, remarks or {})
    for number, make in enumerate(converter.drafts(source, example), 1):
        bundle = attempt.take(f"route {number}", make)
        if bundle is not None:
            return bundle
    bundle = attempt.repaired()
    if bundle is not None:
        return bundle
    raise _all_refused(source, attempt.refusals)


class _Attempt:
    """What was tried so far for one source."""

    def __init__(
        self,
        finish: Callable[[Draft], Draft],
        certify: Callable[..., Bundle],
        start: float,
        remarks: Mapping[str, Any],
    ) -> None:
        self.refusals: list[_Refusal] = []
        self._drafts: list[tuple[str, Draft]] = []
        self._finish, self._certify, self._start, self._remarks = finish, certify, start, remarks

    def take(self, route: str, make: Callable[[], Draft]) -> Bundle | None:
        """The bundle, if this route leads to one."""
        try:
            draft = self._finish(make())
        except ConversionError as error:
            self.refusals.append(_Refusal(route, error))
            return None
        except ModelServeError:
            raise
        except Exception as error:  # noqa: BLE001  # a source raises what it likes, and a converter may have a defect
            reason = f"{type(error).__name__}: {str(error)[:_LONGEST_REASON]}"
            self.refusals.append(_Refusal(route, ConversionError(f"The source or its converter raised {reason}")))
            self.refusals[-1].error.__cause__ = error
            return None
        self._drafts.append((route, draft))
        return self._believed(route, draft)

    def repaired(self) -> Bundle | None:
        """The bundle of a refused draft that a repair made faithful."""
        for route, draft in self._drafts:
            for repair in repairs(draft):
                bundle = self._believed(f"{route} with {repair.title}", repair.draft)
                if bundle is not None:
                    return bundle
        return None

    def _believed(self, route: str, draft: Draft) -> Bundle | None:
        try:
            return self._certify(draft, notes=self._notes)
        except ConversionError as error:
            self.refusals.append(_Refusal(route, error))
            return None

    def _notes(self) -> dict[str, Any]:
        refused = [{"route": refusal.route, "reason": str(refusal.error)} for refusal in self.refusals]
        seconds = round(time.perf_counter() - self._start, 3)
        return {"seconds": seconds, "refused": refused, **self._remarks}


def _as_asked(signature: Signature | None, images: Sequence[Images], draft: Draft) -> Draft:
    """The draft with what the caller asked of its inputs and outputs."""
    if signature is not None:
        draft = overridden(draft, signature)
    for name, image, rows in images:
        draft = pictured(draft, image, rows, name)
    return draft


def _all_refused(source: Any, refusals: list[_Refusal]) -> ConversionError:
    kind = f"{type(source).__module__}.{type(source).__qualname__}"
    if len(refusals) == 1 and not isinstance(refusals[0].error, UnfaithfulError):
        return refusals[0].error
    # What several routes say alike is told once.
    by_reason: dict[str, list[str]] = {}
    for refusal in refusals:
        by_reason.setdefault(str(refusal.error), []).append(refusal.route)
    reasons = "\n".join(f"  {', '.join(routes)}: {reason}" for reason, routes in by_reason.items())
    unfaithful = any(isinstance(refusal.error, UnfaithfulError) for refusal in refusals)
    advice = (
        "If these differences do not matter, allow them with tolerance=; otherwise give more rows as example=, "
        "or report the model."
        if unfaithful
        else "Give the model in another form."
    )
    error = (UnfaithfulError if unfaithful else ConversionError)(
        f"{kind} could not be converted faithfully; {len(refusals)} route(s) were tried:\n{reasons}\n{advice}"
    )
    error.__cause__ = refusals[-1].error if refusals else None
    return error
