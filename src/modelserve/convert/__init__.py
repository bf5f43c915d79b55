"""Any framework's model becomes a bundle, and proves that it is the same model.

source ──detect──► Converter.drafts ──► graph ──compare with the source──► certificate ──► Bundle
   │                      ▲                              │
   │                      └── the next route, a repair ◄─┘ it differs
   └── no route leads there ──► LiveCallable: run as it is, by local workers only
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelserve.bundle import Bundle, LiveCallable
from modelserve.convert.contract import Converter, Draft, Reference
from modelserve.convert.detect import open_file
from modelserve.convert.image_example import readings
from modelserve.convert.images import ImageInput
from modelserve.convert.live import as_it_is
from modelserve.convert.made_up import made_up_example
from modelserve.convert.routes import portable
from modelserve.errors import ConversionError, ExampleRequiredError, InputError, SignatureError
from modelserve.fidelity import Tolerance
from modelserve.tensors import Signature

__all__ = ["Converter", "Draft", "ImageInput", "Reference", "Tolerance", "convert", "portable_or_live"]


def convert(
    source: Any,
    example: Any = None,
    *,
    signature: Signature | None = None,
    inputs: Any = None,
    tolerance: Tolerance | float | None = None,
    into: Path | None = None,
) -> Bundle:
    """Make a trained model portable, and compare it with its source.

    Args:
        source: A model of a supported framework, or the path of a model file.
        example: Inputs that it takes, at least one row; more rows make a better comparison.
        signature: Names, dtypes and axes for its inputs and outputs, where the source's own will not do. Without an
            example rows that fit it are made up, and the certificate says so.
        inputs: An `ImageInput`, or a dict of them by input name, where the model is to take images as they come from
            a decoder; the example is images then, too, and may be left out for a model of one input.
        tolerance: How far numbers may be from the source's; a number allows that much in the outputs' units.
        into: The folder to create; by default the bundle lies under `MODELSERVE_HOME`.

    Raises:
        UnsupportedSourceError, MissingExtraError, ExampleRequiredError: it cannot be tried.
        UnfaithfulError: every route gave a model that does not answer as its source does.
    """
    source, asked = _live_object(source), _as_tolerance(tolerance)
    if inputs is None:
        try:
            return portable(source, example, signature=signature, tolerance=asked, into=into)
        except ExampleRequiredError:
            if signature is None:
                raise
        return _by_signature_alone(source, signature, asked, into)
    refusal: ConversionError | InputError | None = None
    for given, images in readings(source, example, inputs):
        try:
            return portable(source, given, signature=signature, tolerance=asked, into=into, images=images)
        except (ConversionError, SignatureError) as error:
            refusal = refusal or error
    assert refusal is not None  # there is at least one reading
    raise refusal


def portable_or_live(
    source: Any,
    example: Any = None,
    *,
    signature: Signature | None = None,
    inputs: Any = None,
    tolerance: Tolerance | float | None = None,
) -> Bundle | LiveCallable:
    """As `convert`; a source that no route can convert becomes a callable for local workers, with the reason in it.

    Raises:
        ConversionError: it can neither be converted nor run as it is.
    """
    source = _live_object(source)
    try:
        return convert(source, example, signature=signature, inputs=inputs, tolerance=tolerance)
    except ExampleRequiredError:
        raise
    except ConversionError as refusal:
        if inputs is not None:
            raise
        if example is None and signature is not None:
            example = made_up_example(source, signature)
        return as_it_is(source, example, signature, refusal)


def _by_signature_alone(source: Any, signature: Signature, tolerance: Tolerance | None, into: Path | None) -> Bundle:
    remarks = {"example": "made up from the signature"}
    example = made_up_example(source, signature)
    try:
        return portable(source, example, signature=signature, tolerance=tolerance, into=into, remarks=remarks)
    except ConversionError as error:
        raise type(error)(
            f"{error}\nThe example was made up from the signature. Give rows of what the source was trained on: "
            "Model(source, example=X[:8])"
        ) from error


def _live_object(source: Any) -> Any:
    return open_file(Path(source)) if isinstance(source, str | Path) else source


def _as_tolerance(tolerance: Tolerance | float | None) -> Tolerance | None:
    if tolerance is None or isinstance(tolerance, Tolerance):
        return tolerance
    if not isinstance(tolerance, int | float) or not tolerance >= 0:
        raise InputError(f"tolerance must be a number from 0 up or a Tolerance, got {tolerance!r}.")
    return Tolerance(float(tolerance), 0.0)
