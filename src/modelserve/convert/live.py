"""A source that no route can convert, as a callable that the application's own workers run as it is.

    source, example ──► call ──cloudpickle──► a copy of it, tried: names, dtypes, shapes, rows ──► LiveCallable

What is served is the copy, so the copy is what is tried, and it is compared with the source.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cloudpickle
import numpy as np

from modelserve.bundle import LiveCallable
from modelserve.convert import edges
from modelserve.convert.detect import find_converter
from modelserve.convert.hybrid import split_call
from modelserve.errors import ConversionError, ExampleRequiredError, InputError, ModelServeError, SignatureError
from modelserve.fidelity import Comparison, Tolerance, rows_are_independent
from modelserve.live import EstimatorCall, Example, SourceCall, TorchCall, read_example
from modelserve.session import open_session
from modelserve.tensors import Array, Signature, Tensors, TensorSpec

Call = Callable[[Tensors], Mapping[str, Array]]

# The copy computes what the source computes, by the same code.
_EXACT = Tolerance(1e-12, 1e-6)
_GROUPING = ("fit_predict",)


def as_it_is(source: Any, example: Any, signature: Signature | None, refusal: ConversionError) -> LiveCallable:
    """The source on its way to workers that run it as it is.

    Args:
        refusal: Why it has no portable form.

    Raises:
        ConversionError: `refusal` itself where the source cannot be called; another where it cannot be copied, or
            refuses the example.
        ExampleRequiredError: no example is given.
    """
    if not _can_be_called(source):
        raise refusal
    if example is None:
        raise ExampleRequiredError(
            f"{_described(source)} does not say what it takes. Give inputs that it takes: Model(source, example=X[:8])"
        ) from refusal
    call, given = _call(_taking_rows(source), example)
    reason = str(refusal)
    split = split_call(source, given)
    if split is not None:
        call, reason = split.call, f"{reason}\n{split.reason}"
    payload = _pickled(call, source, refusal)
    live = LiveCallable(payload, _first_signature(call, given, refusal), reason)
    copy = _asked(live)
    known = _signature(copy, given)
    if signature is not None:
        known = _checked_override(known, signature)
    report = _comparison(call, copy, known, given.tensors)
    independent = rows_are_independent(copy, known, given.tensors)
    return replace(live, signature=known, rows_independent=independent, reports=(report,))


def _can_be_called(source: Any) -> bool:
    return not isinstance(source, type) and (callable(source) or _is_estimator(source))


def _is_estimator(source: Any) -> bool:
    return hasattr(source, "predict") or hasattr(source, "transform")


def _taking_rows(source: Any) -> Any:
    """The source, or what stands for it where its `predict` takes something else than rows."""
    try:
        taking_rows = getattr(find_converter(source), "taking_rows", None)
    except ModelServeError:
        return source  # nobody knows it, so that it is called as it is
    return source if taking_rows is None else taking_rows(source)


def _roots(source: Any) -> set[str]:
    return {kind.__module__.partition(".")[0] for kind in type(source).__mro__}


def _call(source: Any, example: Any) -> tuple[Call, Example]:
    """How the source is called, and the example in that form."""
    values = example.values() if isinstance(example, Mapping) else example if isinstance(example, tuple) else [example]
    if "torch" in _roots(source) or any("torch" in _roots(value) for value in values):
        return _torch_call(source, example, list(values))
    if _roots(source) & {"keras", "tensorflow", "tf_keras"}:
        given = read_example(example, (), takes_names=False, joins=True)
        return SourceCall(source, given.packing), given
    if _is_estimator(source) and (hasattr(source, "get_params") or not callable(source)):
        return _estimator_call(source, example)
    given = read_example(example, _parameters(source, example), takes_names=_takes(source, example))
    return SourceCall(source, given.packing), given


def _torch_call(source: Any, example: Any, values: Sequence[Any]) -> tuple[Call, Example]:
    # A source of torch's has imported it; nothing is imported here.
    torch = sys.modules["torch"]
    target = getattr(source, "forward", source)
    given = read_example(example, _parameters(target, example), takes_names=_takes(target, example))
    parameters = source.parameters() if hasattr(source, "parameters") else ()
    own = next((one.dtype for one in parameters if one.is_floating_point()), None)
    dtypes = {}
    for (name, array), value in zip(given.tensors.items(), values, strict=True):
        if "torch" in _roots(value):
            dtypes[name] = value.dtype
        elif array.dtype.kind == "f" and own is not None:
            dtypes[name] = own
        else:
            dtypes[name] = torch.from_numpy(np.empty(0, array.dtype)).dtype
    return TorchCall(source, given.packing, torch.from_numpy, torch.no_grad, dtypes), given


def _estimator_call(source: Any, example: Any) -> tuple[Call, Example]:
    if isinstance(example, Mapping):
        import pandas as pd

        example = pd.DataFrame({name: np.asarray(values).reshape(-1) for name, values in example.items()})
    given = read_example(example, ("X",))
    args, _ = given.packing(given.tensors)
    methods: dict[str, tuple[str, int | None]] = {}
    for name, method in _methods(source).items():
        try:
            found = getattr(source, method)(*args)
        except Exception as error:
            raise ConversionError(f"The source refuses the example itself: {type(error).__name__}: {error}") from error
        parts = range(len(found)) if isinstance(found, list) and len(np.shape(found[0])) > 1 else [None]
        methods |= {name if part is None else f"{name}_{part}": (method, part) for part in parts}
    return EstimatorCall(source, given.packing, methods), given


def _methods(source: Any) -> dict[str, str]:
    """The outputs that the estimator can give, by the name we give them: the method that gives each."""
    groups = any(hasattr(source, name) for name in _GROUPING)
    is_label = groups or hasattr(source, "classes_") or hasattr(source, "predict_proba")
    names = {
        "predict": "label" if is_label else "value",
        "predict_proba": "probabilities",
        "decision_function": "decision_function",
        "transform": "distances" if groups else "transformed",
    }
    return {name: method for method, name in names.items() if hasattr(source, method)}


def _parameters(target: Any, example: Any) -> list[str]:
    """Names of what is taken by position; none where the source does not tell."""
    count = len(example) if isinstance(example, tuple) else 0
    try:
        parameters = inspect.signature(target).parameters.values()
    except (ValueError, TypeError):
        return []
    positional = [one for one in parameters if one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD}]
    takes_more = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    if count > len(positional) and not takes_more:
        raise SignatureError(
            f"The example has {count} parts, and the source takes {len(positional)}: "
            f"{', '.join(one.name for one in positional) or 'nothing'}. Give one array, or a tuple with one for each."
        )
    return [one.name for one in positional]


def _takes(target: Any, example: Any) -> bool:
    """Whether a dict's keys are the source's own parameters; else it is given the dict itself."""
    if not isinstance(example, Mapping):
        return False
    try:
        inspect.signature(target).bind(**{str(name): None for name in example})
    except (ValueError, TypeError):
        return False
    return True


def _pickled(call: Call, source: Any, refusal: ConversionError) -> bytes:
    try:
        payload: bytes = cloudpickle.dumps(call)
    except Exception as error:
        raise ConversionError(
            f"{_described(source)} has no portable form ({refusal}), and cannot be copied to worker processes either: "
            f"{type(error).__name__}: {error}. Make it of what can be pickled: open connections, files and locks when "
            "it is first called, not before."
        ) from error
    return payload


def _first_signature(call: Call, given: Example, refusal: ConversionError) -> Signature:
    """Names and dtypes as the source itself gives them."""
    try:
        answers = dict(call(given.tensors))
    except ModelServeError:
        raise
    except Exception as error:
        raise ConversionError(f"The source refuses the example itself: {type(error).__name__}: {error}") from error
    if not answers:
        raise ConversionError("The source answers with nothing, so there is nothing to serve.") from refusal
    return Signature(
        tuple(TensorSpec(name, _dtype(array), array.shape, given.columns) for name, array in given.tensors.items()),
        tuple(TensorSpec(name, _dtype(array), array.shape) for name, array in answers.items()),
    )


def _asked(live: LiveCallable) -> Call:
    """The copy, answering as a worker will."""
    runner = open_session(live)
    names = [spec.name for spec in live.signature.outputs]
    return lambda tensors: runner.run(tensors, names)


def _signature(copy: Call, given: Example) -> Signature:
    """What the copy takes and gives; an axis that follows the number of rows is of any size."""
    found = _by_rows(copy, given.tensors)
    is_batched = len(found) > 1
    inputs = tuple(
        TensorSpec(name, _dtype(array), ("batch", *array.shape[1:]) if is_batched else array.shape, given.columns)
        for name, array in given.tensors.items()
    )
    return Signature(inputs, tuple(_output(name, found) for name in found[0][1]))


def _by_rows(copy: Call, tensors: Tensors) -> list[tuple[int, Mapping[str, Array]]]:
    """The answers for the example's own number of rows, and for others; the first only, where it takes no other."""
    rows = {array.shape[0] if array.ndim else 0 for array in tensors.values()}
    first = (min(rows), copy(tensors))
    if len(rows) > 1 or 0 in rows:
        return [first]
    try:
        sizes = (*edges.batch_sizes(first[0]), first[0] + 1)
        resized = [(size, {name: np.resize(a, (size, *a.shape[1:])) for name, a in tensors.items()}) for size in sizes]
        return [first, *((size, copy(given)) for size, given in resized)]
    except ModelServeError:
        return [first]


def _output(name: str, found: Sequence[tuple[int, Mapping[str, Array]]]) -> TensorSpec:
    arrays = [answers[name] for _, answers in found]
    if len({array.ndim for array in arrays}) > 1:
        raise ConversionError(f"The source answers {name!r} with arrays of different numbers of axes, by their rows.")
    shape: list[int | str] = []
    for axis in range(arrays[0].ndim):
        sizes = [array.shape[axis] for array in arrays]
        follows = len(found) > 1 and all(size == rows for size, (rows, _) in zip(sizes, found, strict=True))
        same = len(set(sizes)) == 1
        shape.append("batch" if follows else sizes[0] if same else f"{name}_axis_{axis}")
    return TensorSpec(name, _dtype(arrays[0]), tuple(shape))


def _checked_override(known: Signature, wanted: Signature) -> Signature:
    """The caller's axes; a source that runs as it is keeps its names and dtypes."""
    for specs, given in ((known.inputs, wanted.inputs), (known.outputs, wanted.outputs)):
        if [(spec.name, spec.dtype, len(spec.shape)) for spec in specs] != [
            (spec.name, spec.dtype, len(spec.shape)) for spec in given
        ]:
            raise InputError(
                "This source has no portable form, so its names and dtypes are its own: "
                f"{', '.join(f'{spec.name}: {spec}' for spec in specs)}."
            )
    return wanted


def _comparison(call: Call, copy: Call, signature: Signature, tensors: Tensors) -> Mapping[str, Any]:
    """The copy beside the source. What differs is written down: a source may well answer otherwise each time."""
    outputs = frozenset(spec.name for spec in signature.outputs if spec.dtype == "string")
    found = Comparison(call, copy, tolerance=_EXACT, decisions=outputs)
    for sample in edges.samples(signature, tensors):
        found.add(sample)
    return found.report().to_json()


def _dtype(array: Array) -> str:
    return "string" if array.dtype.kind == "O" else array.dtype.name


def _described(source: Any) -> str:
    name = getattr(source, "__qualname__", None)
    kind = f"{type(source).__module__}.{type(source).__qualname__}".removeprefix("builtins.")
    return f"{kind} {name!r}" if name else kind
