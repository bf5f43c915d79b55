"""Preprocessing of images built into a draft: it then takes what a decoder gives, images of any size.

    images ──preprocessing──► the draft's own input ──► its answers

Two things are compared: the preprocessing with numpy's, on images of several sizes; and the whole with the source,
given what the preprocessing made of the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import ModelProto, version_converter

from modelserve.bundle import Step
from modelserve.convert.contract import Draft
from modelserve.convert.graph import rename, value_names
from modelserve.convert.image_graph import OPSET, Place, preprocessing
from modelserve.convert.images import LAYOUTS, ImageInput, prepared
from modelserve.errors import ConversionError, SignatureError, UnfaithfulError
from modelserve.fidelity import FidelityReport, Sample, Tolerance, compare
from modelserve.session import load
from modelserve.tensors import Array, Tensors, TensorSpec

_SMALL_SIZES = ((1, 1), (17, 23), (40, 9))


def pictured(draft: Draft, image: ImageInput, images: Array, name: str | None = None) -> Draft:
    """The draft, taking images.

    Args:
        name: The input that takes them; by default the one that they fit.
        images: uint8 of shape (rows, height, width, channels); the draft's own example is what they become.

    Raises:
        SignatureError: the draft has no input of that size for images.
        UnfaithfulError: the preprocessing in the graph is not numpy's.
    """
    place = _place(draft, image, name, images.shape[3])
    prefix = _free_prefix(draft.model)
    graph = preprocessing(place, prefix, draft.model.ir_version)
    session = load(graph.SerializeToString())
    name, reference = place.spec.name, draft.reference

    def prepare(given: Tensors) -> dict[str, Array]:
        return {**given, name: session.run(None, {name: given[name]})[0]}

    report = _compared(place, session)
    if not report.is_faithful:
        raise UnfaithfulError(f"The preprocessing of images differs from numpy's: {report.reason}")
    stages = draft.stages
    inputs = tuple(place.images if spec is place.spec else spec for spec in draft.signature.inputs)
    return replace(
        draft,
        model=_joined(draft.model, graph, name, prefix),
        signature=replace(draft.signature, inputs=inputs),
        example={**draft.example, name: images},
        reference=lambda given: reference(prepare(given)),
        steps=(*draft.steps, Step("preprocess images", {"layout": place.layout, **image.settings()})),
        stages=None if stages is None else lambda given: stages(prepare(given)),
        reports=(*draft.reports, report.to_json() | {"about": "preprocessing, beside numpy's"}),
    )


def _place(draft: Draft, image: ImageInput, name: str | None, given_channels: int) -> Place:
    found = []
    for spec in draft.signature.inputs:
        if name not in {None, spec.name}:
            continue
        for layout in (image.layout,) if image.layout else LAYOUTS:
            place = _fitting(spec, layout, image, given_channels)
            found += [place] if place is not None else []
    if len(found) == 1:
        return found[0]
    height, width = image.height_width
    inputs = ", ".join(f"{spec.name}: {spec}" for spec in draft.signature.inputs)
    if found:
        raise SignatureError(f"Of {inputs} more than one reading fits images of {height}x{width}. Say layout='NCHW'.")
    raise SignatureError(
        f"ImageInput(size=({height}, {width})) needs a model with an input of numbers of shape (batch, 3, {height}, "
        f"{width}) or (batch, {height}, {width}, 3); this one has {inputs}."
    )


def _fitting(spec: TensorSpec, layout: str, image: ImageInput, given_channels: int) -> Place | None:
    if len(spec.shape) != 4 or not (spec.dtype.startswith("float") or spec.dtype == "uint8"):
        return None
    channels, *sides = (spec.shape[layout.index(axis)] for axis in "CHW")
    fits = all(isinstance(side, str) or side == want for side, want in zip(sides, image.height_width, strict=True))
    count = given_channels if isinstance(channels, str) else channels  # a model of any number takes the images' own
    return Place(image, spec, layout, count) if fits and count in (1, 3, 4) else None


def _compared(place: Place, session: Any) -> FidelityReport:
    """The preprocessing beside numpy's: one step of 255 may be rounded otherwise."""
    name = place.spec.name
    height, width = place.image.height_width
    sizes = [(height, width), (2 * height + 1, width + 3), (height // 2 + 1, 3 * width), *_SMALL_SIZES]
    random = np.random.default_rng(0)
    shapes = [(2, *size, place.channels) for size in sizes]
    samples = [Sample(f"{h}x{w}", {name: random.integers(0, 256, (n, h, w, c), np.uint8)}) for n, h, w, c in shapes]
    by, _ = place.image.factors(place.channels)

    def reference(given: Tensors) -> Mapping[str, Array]:
        return {name: prepared(place.image, given[name], place.layout).astype(place.spec.numpy_dtype)}

    def candidate(given: Tensors) -> Mapping[str, Array]:
        try:
            return {name: session.run(None, dict(given))[0]}
        except Exception as error:  # onnxruntime raises classes of its C++ side without a common root
            raise ConversionError(str(error)) from error

    return compare(reference, candidate, samples, tolerance=Tolerance(1.01 * float(np.abs(by).max()), 1e-5))


def _free_prefix(model: ModelProto) -> str:
    taken, prefix = set(value_names(model.graph)), "image_"
    while any(value.startswith(prefix) for value in taken):
        prefix = f"_{prefix}"
    return prefix


def _joined(model: ModelProto, before: ModelProto, name: str, prefix: str) -> ModelProto:
    """The model behind its preprocessing, under the same name of the input."""
    model = _in_opset(model)
    rename(model, {name: f"{prefix}ready"})
    next(value for value in model.graph.input if value.name == f"{prefix}ready").CopyFrom(before.graph.input[0])
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*before.graph.node, *nodes])
    model.graph.initializer.extend(before.graph.initializer)
    return model


def _in_opset(model: ModelProto) -> ModelProto:
    now = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    if now >= OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except (RuntimeError, ValueError) as error:
        raise ConversionError(
            f"Images need opset {OPSET}, and this graph of opset {now} cannot be rewritten in it: {error}"
        ) from error
