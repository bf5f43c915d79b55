"""The life of a deployment, tried from end to end on a stand-in.

    pre-flight ─ deploy ─ answers ─ data set ─ limits ─ scale ─ update ─ a replica dies ─ logs ─ delete ─ leftovers

A step that fails is a finding, and the next ones are tried as far as they can be; everything is deleted at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory

import numpy as np

from modelserve.backend import Backend, Capability, DeploymentSpec, Finding, Rehearsal, Scale, State, Support, Verdict
from modelserve.backend.preflight import Check, Skipped, look_all
from modelserve.bundle import Bundle
from modelserve.deployment import Deployment
from modelserve.errors import (
    BackendError,
    InputError,
    MissingExtraError,
    ModelServeError,
    NotSupportedError,
    PredictionError,
)
from modelserve.rehearsal.report import Report, Stage
from modelserve.rehearsal.sample import successor
from modelserve.session import Session
from modelserve.standin.load import Load
from modelserve.tensors import Array

_UNDER_LOAD = 20
_RECOVERY_S = 60.0
_BATCH_REPEATS = 4

Progress = Callable[[str], None]


def rehearse(
    backend: Backend,
    bundle: Bundle,
    *,
    target: str = "",
    name: str = "rehearsal",
    scale: Scale | None = None,
    on_progress: Progress | None = None,
) -> Report:
    """Live a deployment's whole life on the backend's stand-in.

    Args:
        target: How the report calls it.
        scale: As the target is configured.
        on_progress: Called with a line for people at each stage.

    Raises:
        NotSupportedError: the backend has no stand-in.
        MissingExtraError: the stand-in's packages are not installed.
    """
    tell = on_progress or (lambda _line: None)
    with backend.rehearsal() as rehearsal:
        life = _Life(rehearsal, bundle, DeploymentSpec(name, scale), tell)
        stages = life.lived()
    about = {
        "target": target or backend.name,
        "backend": backend.name,
        "model": bundle.manifest.origin.type,
        "digest": bundle.digest,
    }
    return Report(about, tuple(stages))


class _Life:
    """One life; `deployment` is there once it is deployed."""

    def __init__(self, rehearsal: Rehearsal, bundle: Bundle, spec: DeploymentSpec, tell: Progress) -> None:
        self.rehearsal = rehearsal
        self.backend = rehearsal.backend
        self.bundle = bundle
        self.spec = spec
        self.tell = tell
        self.example = bundle.example()
        self.names = [output.name for output in bundle.signature.outputs]
        self.wanted = Session(bundle).run(self.example, self.names)
        self.before = rehearsal.leftovers()
        self.deployment: Deployment | None = None

    def lived(self) -> list[Stage]:
        stages = [self._preflight()]
        if not any(finding.verdict is Verdict.REFUSED for finding in stages[0].findings):
            stages += [self._stage(name, checks) for name, checks in self._acts()]
        stages.append(self._stage("delete", [Check("delete", self._delete), Check("leftovers", self._leftovers)]))
        live = tuple(Finding("", Verdict.LIVE_ONLY, line) for line in self.rehearsal.only_live)
        return [*stages, *([Stage("only seen live", live)] if live else [])]

    def _preflight(self) -> Stage:
        self.tell("Pre-flight")
        started = time.monotonic()
        try:
            findings = tuple(self.backend.preflight(self.bundle, self.spec))
        except ModelServeError as error:
            findings = (Finding("pre-flight", Verdict.REFUSED, str(error), time.monotonic() - started),)
        return Stage("pre-flight", findings)

    def _acts(self) -> list[tuple[str, list[Check]]]:
        return [
            ("deploy", [Check("deploy", self._deploy), Check("health", self._health), Check("again", self._again)]),
            ("answers", [Check("parity", self._parity), Check("attach", self._attach)]),
            ("data set", [Check("batch service", self._batch)]),
            ("limits", [Check("payload", self._payload), Check("time", self._time)]),
            ("scale", [Check("up and down", self._scale)]),
            ("update", [Check("under load", self._update)]),
            ("failure", [Check("a replica dies", self._death)]),
            ("logs", [Check("logs", self._logs)]),
        ]

    def _stage(self, name: str, checks: Sequence[Check]) -> Stage:
        self.tell(name.capitalize())
        if self.deployment is None and name not in {"deploy", "delete"}:
            return Stage(name, tuple(Finding(one.name, Verdict.SKIPPED, "Nothing is deployed.") for one in checks))
        return Stage(name, tuple(look_all(checks)))

    def _deploy(self) -> str:
        endpoint = self.backend.deploy(self.bundle, self.spec, on_progress=self.tell)
        self.deployment = Deployment(endpoint, self.backend)
        return f"{self.spec.name!r} answers."

    def _health(self) -> str:
        status = self._running().status()
        if status.state is not State.READY or status.digest != self.bundle.digest:
            raise BackendError(f"It is {status.state.value} with model {status.digest[:12]}. {status.message}")
        return f"{len(status.replicas)} of {len(status.replicas)} replicas are ready."

    def _again(self) -> str:
        before = self.rehearsal.leftovers()
        self.backend.deploy(self.bundle, self.spec).close()
        if self.rehearsal.leftovers() != before:
            raise BackendError("A second deploy of the same model made something new.")
        return "A second deploy of the same model changes nothing."

    def _parity(self) -> str:
        self._compare(self._running().predict(self.example, outputs=self.names))
        rows = len(next(iter(self.wanted.values())))
        return f"The example's {rows} rows are answered as on this machine, bit for bit ({', '.join(self.names)})."

    def _attach(self) -> str:
        self._require(Capability.ATTACH)
        again = Deployment(self.backend.attach(self.spec.name), self.backend)
        try:
            self._compare(again.predict(self.example, outputs=self.names))
        finally:
            again.close()
        return "Found again by its name, with the same answers."

    def _batch(self) -> str:
        self._require(Capability.BATCH)
        rows = {name: np.concatenate([array] * _BATCH_REPEATS) for name, array in self.example.items()}
        before = self.rehearsal.leftovers()
        with TemporaryDirectory(prefix="modelserve-rehearsal-") as folder:
            try:
                report = self._running().predict_dataset(rows, folder, engine="batch", max_failures=0)
            except (NotSupportedError, MissingExtraError) as error:
                raise Skipped(str(error)) from error
        if self.rehearsal.leftovers() != before:
            raise BackendError("The job has left something behind.")
        return f"{report.rows:,} rows by a job of the place's own batch service in {report.seconds:.1f} s."

    def _payload(self) -> str:
        limit = self._running().limits.request_bytes
        if limit is None:
            return "The place sets no limit to a request."
        holds = f"A request holds at most {limit:,} bytes"
        size = sum(array.nbytes for array in self.example.values())
        rows = max(1, len(next(iter(self.example.values()))))
        most = limit // max(1, size // rows)
        large = {name: np.repeat(array, limit // max(1, size) + 2, axis=0) for name, array in self.example.items()}
        try:
            self._running().predict(large, outputs=self.names)
        except InputError as error:
            return f"{holds}, some {most:,} rows of the example; larger: {error}"
        return f"{holds}, some {most:,} rows of the example; a larger one is split by rows."

    def _time(self) -> str:
        limit = self._running().limits.timeout_s
        started = time.monotonic()
        self._running().predict(self.example, outputs=self.names)
        took = time.monotonic() - started
        if limit is not None and took > limit / 2:
            raise PredictionError(f"The example takes {took:.1f} s; the place breaks off after {limit:g} s.")
        return f"The example takes {took * 1e3:.0f} ms" + (f"; the place allows {limit:g} s." if limit else ".")

    def _scale(self) -> str:
        self._require(Capability.SCALE)
        deployment = self._running()
        now = len(deployment.status().replicas)
        with Load(self._ask) as load:
            for replicas in (now + 1, now):
                load.wait_for(_UNDER_LOAD)
                deployment.scale(replicas)
            load.wait_for(_UNDER_LOAD)
        _refuse_failures(load)
        return f"{now} to {now + 1} replicas and back under load: {load.answered} requests answered, none failed."

    def _update(self) -> str:
        self._require(Capability.UPDATE)
        deployment, new = self._running(), successor(self.bundle)
        with Load(self._ask) as load:
            load.wait_for(_UNDER_LOAD)
            deployment.update(new)
            load.wait_for(_UNDER_LOAD)
        _refuse_failures(load)
        if deployment.status().digest != new.digest:
            raise BackendError("The update ended, and the old model answers.")
        return f"Another version under load: {load.answered} requests answered, none failed."

    def _death(self) -> str:
        deployment = self._running()
        replicas = len(deployment.status().replicas)
        with Load(self._ask, goes_on=True) as load:
            load.wait_for(_UNDER_LOAD)
            self.rehearsal.kill_replica(self.spec.name)
            self._wait_until(lambda: self._ready() >= replicas, "The replica that died was not replaced.")
            load.wait_for(_UNDER_LOAD)
        strange = [error for error in load.failures if not isinstance(error, ModelServeError)]
        if strange:
            raise BackendError(f"A request failed with an error that is none of ours: {strange[0]!r}.")
        lost = f"{len(load.failures)} failed" + (f" ({load.failures[0]})" if load.failures else "")
        if load.failures and replicas == 1:
            lost += "; with two replicas the other one answers meanwhile"
        return f"One of {replicas} replicas was killed under load and replaced: {load.answered} answered, {lost}."

    def _logs(self) -> str:
        self._require(Capability.LOGS)
        lines = self._running().logs()
        if not lines:
            raise BackendError("The containers wrote lines, and none of them arrived.")
        return f"{len(lines)} lines, the last: {lines[-1][:160]}"

    def _delete(self) -> str:
        self.backend.delete(self.spec.name)
        return "Deleted."

    def _leftovers(self) -> str:
        left = [one for one in self.rehearsal.leftovers() if one not in self.before]
        if left:
            raise BackendError(f"Still there after delete: {', '.join(left)}.")
        return "Nothing is left."

    def _ask(self) -> None:
        self._compare(self._running().predict(self.example, outputs=self.names), is_alone=False)

    def _ready(self) -> int:
        return sum(replica.state is State.READY for replica in self._running().status().replicas)

    def _wait_until(self, is_so: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + _RECOVERY_S
        while not is_so():
            if time.monotonic() > deadline:
                raise BackendError(otherwise)
            time.sleep(0.1)

    def _running(self) -> Deployment:
        assert self.deployment is not None
        return self.deployment

    def _require(self, capability: Capability) -> None:
        if self.backend.supports(capability) is not Support.FULL:
            raise Skipped(
                f"{self.backend.name} declares {capability.value!r} {self.backend.supports(capability).value}."
            )

    def _compare(self, answers: dict[str, Array], *, is_alone: bool = True) -> None:
        for name, wanted in self.wanted.items():
            answer, is_float = np.asarray(answers[name]), wanted.dtype.kind == "f"
            if is_float and not is_alone:
                # What ran in one batch with others may differ in the last bits.
                is_same = np.allclose(answer, wanted, 1e-4, 1e-5, equal_nan=True)
            else:
                is_same = np.array_equal(answer, wanted, equal_nan=is_float)
            if not is_same:
                raise PredictionError(f"Output {name!r} is not what this machine answers.")


def _refuse_failures(load: Load) -> None:
    if load.failures:
        raise BackendError(f"{len(load.failures)} requests failed meanwhile, the first with: {load.failures[0]}")
