"""A running model as its user sees it: arrays in, arrays out, wherever it runs.

    predict ──ask──► Endpoint.submit ──► ReplyFuture ──answer──► arrays

May be used from many threads and tasks at once. One that is forgotten closes its endpoint.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from modelserve.backend import Backend, Capability, Endpoint, EndpointStatus, Limits, Scale, Servable, Support
from modelserve.bundle import Bundle, LiveCallable
from modelserve.deployment.answer import acollect, answer, ask, collect
from modelserve.errors import (
    DeploymentClosedError,
    InputError,
    InvalidScaleError,
    MissingExtraError,
    NotSupportedError,
    SignatureError,
)
from modelserve.tensors import Signature, TensorSpec

if TYPE_CHECKING:  # it brings pyarrow, which only data sets need
    from modelserve.dataset import Progress, Report
    from modelserve.dataset.choice import Columns


class ServableSource(Protocol):
    """What can make something servable, as a `Model` does."""

    def servable(self) -> Servable: ...


class Deployment:
    """A model that answers. Leaving `with` closes it; on a cloud the endpoint goes on until `delete`."""

    def __init__(
        self, endpoint: Endpoint, backend: Backend, *, ephemeral: bool = False, servable: Servable | None = None
    ) -> None:
        self._endpoint = endpoint
        self._backend = backend
        self._servable = servable
        self._ephemeral = ephemeral
        self._closed = False
        # Holds the endpoint and never this object, which could otherwise not be collected.
        self._let_go = weakref.finalize(self, _close, endpoint, os.getpid())

    @property
    def name(self) -> str:
        """Its name at its place; `attach(name)` finds it again where that is possible."""
        return self._endpoint.name

    @property
    def signature(self) -> Signature:
        """What it takes and gives now."""
        return self._endpoint.signature

    @property
    def limits(self) -> Limits:
        """What one request may be there; larger ones are split by rows where that changes nothing."""
        return self._open("limits").limits

    def predict(self, inputs: Any, *, outputs: Sequence[str] | None = None, timeout_s: float | None = None) -> Any:
        """What the source model's own predict answers.

        Args:
            inputs: For a model of one input an array, nested lists or a DataFrame; for several a dict by name, a
                tuple in order, or a DataFrame. One row may come without the batch axis; its answer has none either.
            outputs: The names of the outputs wanted; without it the primary one.
            timeout_s: Longest time to wait; by default what the place allows, or 60 seconds.

        Returns:
            The primary output's array, or with `outputs` a dict of arrays by name.

        Raises:
            SignatureError: the inputs do not fit; nothing was sent.
            PredictionError: there is no answer; `DeadlineError` when none came in time.
            OverloadedError: too much is under way.
            DeploymentClosedError: it was closed before.
        """
        endpoint = self._open("predict")
        question = ask(endpoint, inputs, outputs, timeout_s)
        return answer(question, collect(endpoint, question))

    async def apredict(
        self, inputs: Any, *, outputs: Sequence[str] | None = None, timeout_s: float | None = None
    ) -> Any:
        """As `predict`, for asyncio; no thread waits."""
        endpoint = self._open("apredict")
        question = ask(endpoint, inputs, outputs, timeout_s)
        if len(question.requests) == 1:
            return answer(question, [await endpoint.submit(question.requests[0])])
        return answer(question, await acollect(endpoint, question))

    def predict_dataset(
        self,
        source: Any,
        into: str | Path,
        *,
        columns: Columns | None = None,
        keep: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        format: Literal["parquet", "csv", "jsonl", "npy"] = "parquet",  # noqa: A002  # what it is called everywhere
        batch_rows: int | None = None,
        max_failures: int | None = 1000,
        cast: bool = False,
        restart: bool = False,
        engine: str | None = None,
        timeout_s: float | None = None,
        progress: bool | Callable[[Progress], None] = False,
    ) -> Report:
        """Answer every row of a data set, and write the answers into a folder, in the source's order.

        Memory is bounded whatever the size. Stopped or killed at any moment, the same call goes on where it was, and
        the folder's files are, byte for byte, those of a run that was never stopped.

        Args:
            source: A path, folder, pattern or URL of Parquet, Arrow, CSV, JSON lines, .npy, .npz or pictures, or
                several of them; an Arrow table or reader; a pandas or polars frame; an array or a dict of columns; an
                iterator of these, or of rows as dicts.
            into: The folder; it is made. It holds `part-*`, `_failed-*.jsonl` for rows without an answer,
                `_manifest.jsonl` and `_report.json`.
            columns: What the model is fed with, where names and sizes do not tell: names in order, or a dict by input.
            keep: Columns of the source that stand beside the outputs.
            outputs: The names of the outputs wanted; without it the primary one.
            batch_rows: Rows of a request; by default what a short measurement finds.
            max_failures: More rows than this without an answer end the run; None for no bound.
            cast: Whether floats may be rounded to the model's dtype.
            restart: Remove the parts that are there, and begin anew.
            engine: Who does it: "batch", the place's own batch service; "local", this process by asking the deployment;
                "ray", or another that is installed. By default the batch service where the place has one.
            timeout_s: Longest time for one request.
            progress: True draws a bar on standard error; or what is called with a `Progress` now and then.

        Raises:
            SignatureError: columns are missing, or do not fit the model; nothing was written.
            SourceError, SinkError: rows cannot be read, or parts not be written; what is there stays.
            ResumeError: the folder holds parts of another model, source or option.
            FolderInUseError: another run writes into the folder.
            TooManyFailuresError: more rows failed than may.
        """
        endpoint = self._open("predict_dataset")
        if engine is None:
            engine = "batch" if self._backend.supports(Capability.BATCH) is Support.FULL else "local"
        if engine == "batch":
            require(self._backend, Capability.BATCH)
        _require_pyarrow()
        from modelserve.dataset import Options, predict_dataset
        from modelserve.dataset.progress import shown

        options = Options(
            columns=columns,
            keep=keep,
            outputs=outputs,
            format=format,
            batch_rows=batch_rows,
            max_failures=max_failures,
            cast=cast,
            restart=restart,
            engine=engine,
            timeout_s=timeout_s,
        )
        with shown(progress) as tell:
            return predict_dataset(endpoint, source, into, options, servable=self._servable, on_progress=tell)

    def scale(
        self,
        replicas: int | Scale | None = None,
        *,
        minimum: int | None = None,
        maximum: int | None = None,
        target_inflight: float | None = None,
        target_cpu: float | None = None,
        target_requests_per_minute: float | None = None,
    ) -> None:
        """Have this many replicas, or as many as a target needs between two bounds; returns when they are there.

        Raises:
            InvalidScaleError: the counts make no sense.
            NotSupportedError: the place cannot do that.
        """
        endpoint = self._open("scale")
        targets = {
            "target_inflight": target_inflight,
            "target_cpu": target_cpu,
            "target_requests_per_minute": target_requests_per_minute,
        }
        wanted = _wanted(replicas, minimum, maximum, targets)
        require_scale(self._backend, wanted)
        endpoint.scale(wanted)

    def status(self) -> EndpointStatus:
        """Its state and its replicas, as their place sees them now."""
        return self._open("status").status()

    def update(self, model: ServableSource | Servable) -> None:
        """Answer with another version of the model from now on; no request fails, none gets a mixed answer.

        Args:
            model: A `Model` or a `Bundle` that takes the same inputs and gives at least the same outputs.

        Raises:
            SignatureError: it takes or gives something else; serve it under another name.
        """
        endpoint = self._open("update")
        require(self._backend, Capability.UPDATE)
        servable = _servable(model)
        require_servable(self._backend, servable)
        _check_replaceable(endpoint.signature, servable.signature)
        endpoint.update(servable)
        self._servable = servable

    def logs(self) -> list[str]:
        """Lines that the replicas wrote, oldest first."""
        endpoint = self._open("logs")
        require(self._backend, Capability.LOGS)
        return list(endpoint.logs())

    def close(self) -> None:
        """Let go of it: local workers end, a cloud's endpoint goes on. Quiet when called twice."""
        self._closed = True
        self._let_go()

    def delete(self) -> None:
        """Remove it and everything made for it, also after `close`. Quiet when it is gone already."""
        self._endpoint.delete()
        self.close()

    def __enter__(self) -> Self:
        self._open("with")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ephemeral:
            self.delete()
        else:
            self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<Deployment {self.name!r} on {self._backend.name!r}{state}>"

    def _open(self, doing: str) -> Endpoint:
        if self._closed:
            raise DeploymentClosedError(
                f"{doing} was called on deployment {self.name!r}, which is closed. Serve the model again"
                f"{', or attach to it by name' * (self._backend.supports(Capability.ATTACH) is Support.FULL)}."
            )
        return self._endpoint


def require(backend: Backend, *capabilities: Capability) -> None:
    """Refuse what the place has not declared.

    Raises:
        NotSupportedError: naming what it lacks and what it has.
    """
    for capability in capabilities:
        support = backend.supports(capability)
        if support is not Support.FULL:
            has = [known.value for known in Capability if backend.supports(known) is Support.FULL]
            raise NotSupportedError(
                f"Backend {backend.name!r} does not offer {capability.value!r} ({support.value}); "
                f"it offers {', '.join(has) or 'none of the optional capabilities'}."
            )


def require_scale(backend: Backend, scale: Scale) -> None:
    """Refuse a scale that the place has not declared."""
    require(backend, Capability.SCALE)
    if not scale.is_fixed:
        require(backend, Capability.AUTOSCALE)
    if scale.maximum == 0:
        require(backend, Capability.REST)
    elif scale.minimum == 0:
        require(backend, Capability.SCALE_TO_ZERO)


def require_servable(backend: Backend, servable: Servable) -> None:
    """Refuse a live callable where it cannot be run."""
    if isinstance(servable, LiveCallable) and backend.supports(Capability.LIVE_CALLABLE) is not Support.FULL:
        raise NotSupportedError(
            f"Backend {backend.name!r} runs portable models only, and this source could not be made one: "
            f"{servable.reason} Serve it on a local target."
        )


def _require_pyarrow() -> None:
    if find_spec("pyarrow") is None:
        raise MissingExtraError(
            "Data sets need the package pyarrow, which is not installed. Install it with: "
            'pip install "modelserve[dataset]"'
        )


def _close(endpoint: Endpoint, owner: int) -> None:
    # A forked child inherits this object, and its end must not close what its parent uses.
    if os.getpid() == owner:
        endpoint.close()


def _wanted(
    replicas: int | Scale | None, minimum: int | None, maximum: int | None, targets: dict[str, float | None]
) -> Scale:
    bounds = (minimum, maximum, *targets.values())
    if replicas is not None:
        if any(bound is not None for bound in bounds):
            raise InvalidScaleError("scale takes a number of replicas, or minimum and maximum with a target; not both.")
        return replicas if isinstance(replicas, Scale) else Scale.fixed(replicas)
    if maximum is None:
        raise InvalidScaleError("scale takes a number of replicas, or a maximum. Write scale(4) or scale(maximum=8).")
    return Scale(1 if minimum is None else minimum, maximum, **targets)


def _servable(model: Any) -> Servable:
    if isinstance(model, Bundle | LiveCallable):
        return model
    if not hasattr(model, "servable"):
        raise InputError(f"update takes a Model or a Bundle, got {type(model).__name__}. Write update(Model(...)).")
    servable: Servable = model.servable()
    return servable


def _check_replaceable(old: Signature, new: Signature) -> None:
    """Calls that were written for `old`, and those under way, must mean the same to `new`."""
    gives = {spec.name: _kind(spec) for spec in new.outputs}
    lacks = [spec.name for spec in old.outputs if gives.get(spec.name) != _kind(spec)]
    takes = [_kind(spec) for spec in new.inputs] == [_kind(spec) for spec in old.inputs]
    if lacks or not takes or new.primary != old.primary:
        what = f"gives another or no {lacks[0]!r}" if lacks else "takes other inputs"
        raise SignatureError(
            f"The new model {what}: running is {_described(old)}, new is {_described(new)}. "
            "Serve it under another name."
        )


def _kind(spec: TensorSpec) -> tuple[Any, ...]:
    return spec.name, spec.dtype, tuple(size if isinstance(size, int) else None for size in spec.shape)


def _described(signature: Signature) -> str:
    inputs = ", ".join(f"{spec.name}: {spec}" for spec in signature.inputs)
    return f"({inputs}) -> ({', '.join(f'{spec.name}: {spec}' for spec in signature.outputs)})"
