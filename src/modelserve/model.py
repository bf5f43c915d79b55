"""The front door: a trained model of any framework, on its way to answers.

source ──convert──► Bundle ──optimize──► Bundle ──Backend.deploy──► Endpoint ──► Deployment
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

from modelserve.backend import DeploymentSpec, Finding, Scale, Servable
from modelserve.bundle import Bundle, LiveCallable
from modelserve.deployment import Deployment, OpenTarget, open_target
from modelserve.deployment.deployment import require_scale, require_servable
from modelserve.deployment.target import as_scale
from modelserve.errors import InputError, NotSupportedError, PlanError
from modelserve.tensors import Signature

#: What every place takes as a name.
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_DIGEST_LETTERS = 12


@dataclass(frozen=True, slots=True)
class DryRun:
    """What `serve` would do. Its text is for people."""

    action: Literal["create", "update", "nothing"]
    name: str
    target: str
    backend: str
    digest: str
    scale: Scale | None
    options: Mapping[str, Any]
    findings: Sequence[Finding] = ()

    def __str__(self) -> str:
        doing = {
            "create": f"Would create {self.name!r}",
            "update": f"Would update {self.name!r} to another model",
            "nothing": f"Would change nothing: {self.name!r} runs this model already",
        }
        scale = "the place's choice" if self.scale is None else f"{self.scale.minimum} to {self.scale.maximum}"
        lines = [f"{doing[self.action]} on target {self.target!r} (backend {self.backend!r})"]
        lines += [f"  model     {self.digest[:_DIGEST_LETTERS]}", f"  replicas  {scale}"]
        lines += [f"  {name} = {value!r}" for name, value in self.options.items()]
        lines += [f"  {finding}" for finding in self.findings]
        return "\n".join(lines)


class Model:
    """A trained model. Nothing happens until it is asked for something.

    The source is read once, when first needed; wrap it again after training it further.

    Args:
        source: A model of any supported framework, the path of a model file or bundle, a `Bundle`, or a callable.
        example: Inputs that it takes, at least one row; for frameworks whose models do not say what they take.
        signature: What it takes and gives, where the example cannot tell.
        inputs: A description of the inputs that is built into the model, such as preprocessing.
        tolerance: How far the portable model's numbers may be from the source's.
    """

    def __init__(
        self,
        source: Any,
        example: Any = None,
        *,
        signature: Signature | None = None,
        inputs: Any = None,
        tolerance: Any = None,
    ) -> None:
        if source is None:
            raise InputError("Model takes a trained model, the path of one or a Bundle, got None.")
        self._source = source
        self._example = example
        self._settings = {"signature": signature, "inputs": inputs, "tolerance": tolerance}
        self._lock = threading.Lock()
        self._converted: Servable | None = None

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """The model in a bundle's folder.

        Raises:
            BundleError: there is none, it is damaged, or it was made by a newer modelserve.
        """
        return cls(Bundle.open(path))

    def bundle(self, optimize: Any = None) -> Bundle:
        """The portable model on disk; it lies under `MODELSERVE_HOME`, once however often it is made.

        Whoever wants a portable model or nothing asks for this: it never falls back to the source as it is.

        Raises:
            ConversionError: the source could not be made portable, or does not answer as its source does.
            NotSupportedError: it was served as it is before, since it could not be made portable.
        """
        with self._lock:
            if isinstance(self._converted, LiveCallable):
                raise NotSupportedError(
                    f"This source has no portable form: {self._converted.reason} "
                    "It can be served on a local target only."
                )
            bundle = self._converted if self._converted is not None else self._convert()
            self._converted = bundle
        optimized = _optimized(bundle, optimize)
        assert isinstance(optimized, Bundle)  # what is made of a bundle is one
        return optimized

    def servable(self, optimize: Any = None, *, on_progress: Callable[[str], None] | None = None) -> Servable:
        """What a backend is given: a bundle, or a live callable where the source has no portable form.

        The text of a live callable says why it has none, and what was tried.
        """
        with self._lock:
            if self._converted is None:
                self._converted = self._convert(or_live=True)
        return _optimized(self._converted, optimize, on_progress)

    @overload
    def serve(
        self,
        target: str | None = ...,
        *,
        name: str | None = ...,
        optimize: Any = ...,
        scale: Scale | int | None = ...,
        workers: int | str | None = ...,
        wait: bool = ...,
        timeout_s: float | None = ...,
        on_progress: Callable[[str], None] | None = ...,
        dry_run: Literal[False] = ...,
        ephemeral: bool = ...,
        **options: Any,
    ) -> Deployment: ...
    @overload
    def serve(
        self,
        target: str | None = ...,
        *,
        name: str | None = ...,
        optimize: Any = ...,
        scale: Scale | int | None = ...,
        workers: int | str | None = ...,
        wait: bool = ...,
        timeout_s: float | None = ...,
        on_progress: Callable[[str], None] | None = ...,
        dry_run: Literal[True],
        ephemeral: bool = ...,
        **options: Any,
    ) -> DryRun: ...
    def serve(
        self,
        target: str | None = None,
        *,
        name: str | None = None,
        optimize: Any = None,
        scale: Scale | int | None = None,
        workers: int | str | None = None,
        wait: bool = True,
        timeout_s: float | None = None,
        on_progress: Callable[[str], None] | None = None,
        dry_run: bool = False,
        ephemeral: bool = False,
        **options: Any,
    ) -> Deployment | DryRun:
        """Run the model at a target; under a name that exists, the same model changes nothing and another updates it.

        Args:
            target: A target of the configuration, or an installed backend; by default the configured default.
            name: At most 40 of a-z, 0-9 and "-", from a letter on; by default made of the model's type and digest.
            scale: Replicas, over what the configuration says.
            workers: Worker processes, for places whose backend has that option.
            wait: Whether to return only when it answers.
            timeout_s: Longest time that it may take to come up.
            on_progress: Called with a line for people at each stage.
            dry_run: Say what would be done and touch nothing; the text goes to `on_progress`, or is printed.
            ephemeral: Delete it at the end of `with`, also from a cloud.
            options: The backend's own options, over what the configuration says.

        Raises:
            ConversionError: the source could not be made portable, or does not answer as its source does.
            UnknownTargetError: no such target.
            BackendError: the place could not run it.
        """
        said = options if workers is None else {**options, "workers": workers}
        _checked_name(name)
        return self.serve_at(
            open_target(target, code=said),
            name=name,
            optimize=optimize,
            scale=scale,
            wait=wait,
            timeout_s=timeout_s,
            on_progress=on_progress,
            dry_run=dry_run,
            ephemeral=ephemeral,
        )

    def serve_at(
        self,
        opened: OpenTarget,
        *,
        name: str | None = None,
        optimize: Any = None,
        scale: Scale | int | None = None,
        wait: bool = True,
        timeout_s: float | None = None,
        on_progress: Callable[[str], None] | None = None,
        dry_run: bool = False,
        ephemeral: bool = False,
    ) -> Deployment | DryRun:
        """As `serve`, at a target that was opened before."""
        chosen = _checked_name(name)
        replicas = as_scale(scale) if scale is not None else opened.scale
        if replicas is not None:
            require_scale(opened.backend, replicas)
        servable = self.servable(optimize if optimize is not None else opened.target.optimize, on_progress=on_progress)
        require_servable(opened.backend, servable)
        if isinstance(servable, LiveCallable) and on_progress is not None:
            on_progress(f"Running it as it is, in Python: {servable.reason}")
        spec = DeploymentSpec(chosen or default_name(servable), replicas, timeout_s, wait)
        if dry_run:
            return _said(_dry_run(opened, servable, spec), on_progress)
        endpoint = opened.backend.deploy(servable, spec, on_progress=on_progress)
        return Deployment(endpoint, opened.backend, ephemeral=ephemeral, servable=servable)

    def __repr__(self) -> str:
        return f"<Model of {type(self._source).__name__}>"

    @overload
    def _convert(self) -> Bundle: ...
    @overload
    def _convert(self, *, or_live: bool) -> Servable: ...
    def _convert(self, *, or_live: bool = False) -> Servable:
        if isinstance(self._source, Bundle):
            return self._source
        if isinstance(self._source, str | Path) and (Path(self._source) / "manifest.json").is_file():
            return Bundle.open(self._source)
        # Imported where a conversion is needed: serving a bundle needs no converter.
        from modelserve import convert

        make = convert.portable_or_live if or_live else convert.convert
        return make(self._source, self._example, **self._settings)


def default_name(servable: Servable) -> str:
    """A name that every place takes, from the model's type and digest."""
    kind = "callable" if isinstance(servable, LiveCallable) else servable.manifest.origin.type
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", kind.rpartition(".")[2])
    plain = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-").lstrip("0123456789-")
    return f"{plain[: 39 - _DIGEST_LETTERS].rstrip('-') or 'model'}-{servable.digest[:_DIGEST_LETTERS]}"


def _optimized(servable: Servable, plan: Any, on_progress: Callable[[str], None] | None = None) -> Servable:
    if plan is None:
        return servable
    if isinstance(servable, LiveCallable):
        raise PlanError(
            f"Only a portable model can be optimised, and this source has no portable form: {servable.reason}"
        )
    from modelserve.optimize import optimize

    tell = on_progress or (lambda _line: None)
    return optimize(servable, plan, on_progress=lambda progress: tell(f"optimising {progress}"))


def _checked_name(name: str | None) -> str | None:
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise InputError(
            f"A deployment's name has at most 40 of a-z, 0-9 and '-', starts with a letter and does not end with "
            f"'-', got {name!r}."
        )
    return name


def _dry_run(opened: OpenTarget, servable: Servable, spec: DeploymentSpec) -> DryRun:
    running = {status.name: status.digest for status in opened.backend.list()}
    is_same = running.get(spec.name) == servable.digest
    target = opened.target
    shown = {
        setting.name: setting.shown for key, setting in target.settings.items() if key[0] not in {"backend", "scale"}
    }
    return DryRun(
        "create" if spec.name not in running else "nothing" if is_same else "update",
        spec.name,
        target.name,
        target.backend,
        servable.digest,
        spec.scale,
        shown,
        opened.backend.preflight(servable, spec),
    )


def _said(plan: DryRun, on_progress: Callable[[str], None] | None) -> DryRun:
    # A dry run is asked for in order to be read: the only thing that this package writes by itself.
    (on_progress or (lambda text: sys.stdout.write(text + "\n") and None))(str(plan))
    return plan
