"""One model loaded in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from modelserve.bundle import Bundle, LiveCallable, Manifest
from modelserve.errors import BundleError, ModelRunError, ModelServeError, OutOfMemoryError, SignatureError
from modelserve.tensors import Array, Signature, Tensors

# What onnxruntime says when the system gives it no memory.
_NO_MEMORY = ("bad_alloc", "Failed to allocate memory", "bad allocation")


class Runner(Protocol):
    """What answers for a model in this process."""

    @property
    def signature(self) -> Signature: ...

    @property
    def rows_independent(self) -> bool: ...

    def run(self, tensors: Tensors, outputs: Sequence[str] = ()) -> dict[str, Array]:
        """The asked outputs by name (the primary one when none is asked for)."""
        ...


class Session:
    """A bundle loaded by onnxruntime.

    Args:
        threads: Threads within one operator. With 1 nothing but the calling thread works, and the process may fork.
        settings: onnxruntime session settings by their names, such as "session.disable_prepacking"; they add to
            those that the bundle brings.
        mapped: The model as `optimize_for_mapping` wrote it, to be loaded instead of the bundle's file.

    Raises:
        BundleError: onnxruntime refuses the model.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 1,
        settings: Mapping[str, str] | None = None,
        mapped: Path | None = None,
    ) -> None:
        self.signature = bundle.signature
        self.rows_independent = bundle.rows_independent
        self._session = load(
            mapped or bundle.model_path,
            threads=threads,
            settings={**session_settings(bundle.manifest), **(settings or {})},
            optimized=mapped is not None,
        )
        self._primary = [self.signature.primary]
        self._known = {spec.name: spec for spec in self.signature.outputs}

    def run(self, tensors: Tensors, outputs: Sequence[str] = ()) -> dict[str, Array]:
        """The asked outputs by name (the primary one when none is asked for).

        Args:
            tensors: C-contiguous arrays by input name, as `Signature.check` gives them.

        Raises:
            SignatureError: an output is asked for that the model does not have.
            ModelRunError: the model refuses the inputs.
            OutOfMemoryError: the system gave no memory to run them.
        """
        names = list(outputs) if outputs else self._primary
        for name in names:
            if name not in self._known:
                self.signature.output(name)
        try:
            arrays = self._session.run(names, tensors)
        except Exception as error:  # onnxruntime raises classes of its C++ side without a common root
            if any(sign in str(error) for sign in _NO_MEMORY):
                raise OutOfMemoryError(
                    f"There was no memory to run these inputs. Send fewer rows at once. ({error})"
                ) from error
            raise ModelRunError(f"The model refused these inputs: {error}") from error
        return {name: _as_array(array) for name, array in zip(names, arrays, strict=True)}


class CallableSession:
    """A live callable, unpickled in this process. Only for what came over the application's private channel."""

    def __init__(self, live: LiveCallable) -> None:
        import cloudpickle

        self.signature = live.signature
        self.rows_independent = live.rows_independent
        self._call: Callable[[Tensors], Any] = cloudpickle.loads(live.payload)

    def run(self, tensors: Tensors, outputs: Sequence[str] = ()) -> dict[str, Array]:
        """As `Session.run`."""
        names = outputs or [self.signature.primary]
        for name in names:
            self.signature.output(name)
        try:
            answers = self._call(tensors)
            # An answer may be made only when it is looked at.
            found = {name: answers[name] for name in names if name in answers} if isinstance(answers, Mapping) else {}
        except ModelServeError:
            raise
        except MemoryError as error:
            raise OutOfMemoryError(
                f"The callable had no memory for these inputs. Send fewer rows at once. ({error})"
            ) from error
        except Exception as error:  # the user's own code may raise anything
            raise ModelRunError(f"The callable raised {type(error).__name__}: {error}") from error
        if not isinstance(answers, Mapping):
            raise SignatureError(f"The callable must return a dict of outputs by name, got {type(answers).__name__}.")
        missing = [name for name in names if name not in found]
        if missing:
            raise SignatureError(f"The callable gave no {', '.join(map(repr, missing))}.")
        return {name: _as_array(array) for name, array in found.items()}


def open_session(servable: Bundle | LiveCallable, *, threads: int = 1, mapped: Path | None = None) -> Runner:
    """Whatever runs this servable; `mapped` as for `Session`."""
    if isinstance(servable, LiveCallable):
        return CallableSession(servable)
    return Session(servable, threads=threads, mapped=mapped)


def session_settings(manifest: Manifest) -> dict[str, str]:
    """The onnxruntime settings with which a bundle is to run: those of its lineage's steps, the later ones last."""
    found: dict[str, str] = {}
    for step in manifest.lineage:
        found |= step.settings.get("session", {})
    return found


def optimize_for_mapping(bundle: Bundle, model: Path, *, weights: str, from_bytes: int) -> None:
    """Write the bundle's model as onnxruntime runs it on this host, its packed weights in a file beside it.

    Args:
        model: The file to write.
        weights: Name of the file with the weights, in the same folder.
        from_bytes: Weights below this size stay in the model's own file.

    Raises:
        BundleError: onnxruntime refuses the model.
    """
    options = _options(
        1,
        {
            **session_settings(bundle.manifest),
            "session.optimized_model_external_initializers_file_name": weights,
            "session.optimized_model_external_initializers_min_size_in_bytes": str(from_bytes),
            "session.save_external_prepacked_constant_initializers": "1",
        },
    )
    options.optimized_model_filepath = str(model)
    _open(bundle.model_path, options)


def load(
    model: Path | bytes, *, threads: int = 1, settings: Mapping[str, str] | None = None, optimized: bool = False
) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU, quiet and with `threads` threads within an operator.

    Args:
        optimized: The model is one that onnxruntime itself has optimised and written.

    Raises:
        BundleError: onnxruntime refuses the model.
    """
    import onnxruntime

    options = _options(threads, settings or {})
    if optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _open(model, options)


def _options(threads: int, settings: Mapping[str, str]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    return options


def _open(model: Path | bytes, options: Any) -> Any:
    import onnxruntime

    try:
        source = model if isinstance(model, bytes) else str(model)
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its C++ side without a common root
        raise BundleError(f"onnxruntime {onnxruntime.__version__} cannot load this model: {error}") from error


def _as_array(value: Any) -> Array:
    # A scalar output comes as a numpy scalar; text comes as objects or as fixed-width text.
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind == "U" else array
