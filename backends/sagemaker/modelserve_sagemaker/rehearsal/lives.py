"""The life of an endpoint: Creating, InService, Updating, RollingBack, Failed, Deleting, each as long as it takes.

    create    containers start ─► /ping is 200 ─► InService                     or Failed, with the reason
    update    new containers beside the old ─► (canary, alarms) ─► traffic moves ─► old ones drain
                                               └─ not healthy, or an alarm: RollingBack ─► InService as before

The containers of batch jobs are started and ended here too.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelserve.standin.containers import ContainerSpec
from modelserve.standin.faults import Faults
from modelserve.standin.fleet import Fleet, NoCapacityError, NotHealthyError
from modelserve_sagemaker.logs import group_of
from modelserve_sagemaker.rehearsal.logbook import Logbook
from modelserve_sagemaker.rehearsal.records import EndpointRecord, Records
from modelserve_sagemaker.rehearsal.upstream import Upstream

_S3 = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<key>.+)")
_MOUNTED_AT = "/opt/ml/model"
_GRACE_S = 30.0
_DEFAULT_STARTUP_S = 480
_SERVERLESS_STARTUP_S = 180
_LOOK_EVERY_S = 0.05

Config = dict[str, Any]


class NoModelError(Exception):
    """The model's files cannot be had."""


class Lives:
    """Moves endpoints through their life, each step in a thread of its own.

    Args:
        pace: Seconds of AWS for a second here, for what takes minutes there: health checks and canaries.
    """

    def __init__(self, records: Records, upstream: Upstream, faults: Faults, logbook: Logbook, pace: float) -> None:
        self._records = records
        self._upstream = upstream
        self._faults = faults
        self._logbook = logbook
        self._pace = pace
        self._folders = Path(tempfile.mkdtemp(prefix="modelserve-standin-"))
        self._threads: list[threading.Thread] = []
        self._fleets: list[Fleet] = []
        self._is_closing = threading.Event()

    def begin(self, record: EndpointRecord, config: Config) -> None:
        self.start(self._begun, record, config)

    def change(self, record: EndpointRecord, config: Config, request: dict[str, Any]) -> None:
        self.start(self._changed, record, config, request)

    def resize(self, record: EndpointRecord, wishes: dict[str, dict[str, Any]]) -> None:
        self.start(self._resized, record, wishes)

    def end(self, record: EndpointRecord) -> None:
        self.start(self._ended, record)

    def close(self) -> None:
        """End every container."""
        self._is_closing.set()
        for fleet in list(self._fleets):
            fleet.stop()
        for thread in self._threads:
            thread.join(_GRACE_S)
        for fleet in list(self._fleets):
            fleet.stop()
        shutil.rmtree(self._folders, ignore_errors=True)

    def fleet(
        self, name: str, model: str, *, startup_s: float, group: str, environment: Mapping[str, str] | None = None
    ) -> Fleet:
        """Containers of a model, none of which is started yet; `name` begins with what its log streams leave out."""
        spec = self._spec(self._records.get("model", model), environment or {})
        made = Fleet(name, spec, startup_s=startup_s / self._pace, switches=lambda: self._faults.switches)
        self._fleets.append(made)
        self._logbook.open(group, made)
        return made

    def stop(self, fleet: Fleet) -> None:
        """End its containers; what they wrote is kept."""
        fleet.stop()
        self._logbook.write(fleet)
        self._fleets.remove(fleet)

    @property
    def processes(self) -> list[str]:
        """Containers that run, for whoever looks for leftovers."""
        return sorted(container.name for fleet in self._fleets for container in fleet.containers)

    def start(self, step: Callable[..., None], *arguments: Any) -> None:
        """Take a step in a thread of its own, which `close` waits for."""
        thread = threading.Thread(target=step, args=arguments, name=f"modelserve-life-{step.__name__}", daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _begun(self, record: EndpointRecord, config: Config) -> None:
        try:
            fleets = self._fleets_of(record, config, {})
        except (NotHealthyError, NoCapacityError, NoModelError) as error:
            with self._records.lock:
                record.move("Failed", _reason(error))
            return
        self._serve(record, config, fleets)

    def _changed(self, record: EndpointRecord, config: Config, request: dict[str, Any]) -> None:
        keeps = bool(request.get("RetainAllVariantProperties"))
        counts = {name: fleet.wanted for name, fleet in record.fleets.items()} if keeps else {}
        try:
            fleets = self._fleets_of(record, config, counts)
        except (NotHealthyError, NoCapacityError, NoModelError) as error:
            with self._records.lock:
                record.move("InService", _reason(error))
            return
        reason = self._tried(record, fleets, request.get("DeploymentConfig", {}))
        if reason:
            with self._records.lock:
                record.move("RollingBack", reason)
            self._stop(fleets)
            with self._records.lock:
                record.move("InService", reason)
            return
        old = record.fleets
        with self._records.lock:
            record.config_name = request["EndpointConfigName"]
            record.last_deployment = request.get("DeploymentConfig", {})
        self._serve(record, config, fleets)
        self._stop(old)

    def _tried(self, record: EndpointRecord, fleets: dict[str, Fleet], deployment: dict[str, Any]) -> str:
        """Let part of the traffic try the new version; the reason to go back, if there is one."""
        routing = deployment.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration", {})
        alarms = [alarm["AlarmName"] for alarm in deployment.get("AutoRollbackConfiguration", {}).get("Alarms", [])]
        if routing.get("Type") != "CANARY":
            return self._alarmed(alarms)
        with self._records.lock:
            record.canary, record.canary_percent = fleets, routing["CanarySize"]["Value"]
            record.stages.append("Baking")
        ends = time.monotonic() + routing["WaitIntervalInSeconds"] / self._pace
        reason = self._alarmed(alarms)
        while not reason and time.monotonic() < ends and not self._is_closing.wait(_LOOK_EVERY_S):
            reason = self._alarmed(alarms)
        with self._records.lock:
            record.canary, record.canary_percent = {}, 0
        return reason

    def _alarmed(self, names: list[str]) -> str:
        if not names:
            return ""
        found = self._upstream.client("cloudwatch").describe_alarms(AlarmNames=names)["MetricAlarms"]
        ringing = [alarm["AlarmName"] for alarm in found if alarm["StateValue"] == "ALARM"]
        return f"One or more configured alarm(s) went off: {', '.join(ringing)}." if ringing else ""

    def _resized(self, record: EndpointRecord, wishes: dict[str, dict[str, Any]]) -> None:
        failure = ""
        for name, wish in wishes.items():
            wanted = wish.get("DesiredInstanceCount")
            if "ServerlessUpdateConfig" in wish:
                record.serverless = {**record.serverless, **wish["ServerlessUpdateConfig"]}
                wanted = _kept_warm(record.serverless)
            if wanted is None:
                continue
            record.desired[name] = wanted
            try:
                record.fleets[name].resize(wanted)
            except (NotHealthyError, NoCapacityError) as error:
                failure = _reason(error)
            record.desired.pop(name)
        with self._records.lock:
            record.move("InService", failure)

    def _ended(self, record: EndpointRecord) -> None:
        self._stop(record.fleets)
        with self._records.lock:
            del self._records.endpoints[record.name]
            self._records.tags.pop(record.arn, None)

    def _serve(self, record: EndpointRecord, config: Config, fleets: dict[str, Fleet]) -> None:
        with self._records.lock:
            record.fleets = fleets
            record.serverless = config["ProductionVariants"][0].get("ServerlessConfig", {})
            record.move("InService")

    def _stop(self, fleets: dict[str, Fleet]) -> None:
        for fleet in fleets.values():
            self.stop(fleet)

    def _fleets_of(self, record: EndpointRecord, config: Config, counts: dict[str, int]) -> dict[str, Fleet]:
        made: dict[str, Fleet] = {}
        with self._records.lock:
            record.stages.append("Creating")
        for variant in config["ProductionVariants"]:
            name = variant["VariantName"]
            startup_s = variant.get("ContainerStartupHealthCheckTimeoutInSeconds", _DEFAULT_STARTUP_S)
            if "ServerlessConfig" in variant:
                startup_s = _SERVERLESS_STARTUP_S
            place = f"{record.name}/{name}/{variant['ModelName'][-6:]}"
            fleet = self.fleet(place, variant["ModelName"], startup_s=startup_s, group=group_of(record.name))
            made[name] = fleet
            try:
                wanted = variant.get("InitialInstanceCount") or _kept_warm(variant.get("ServerlessConfig", {}))
                fleet.resize(counts.get(name, wanted))
            except (NotHealthyError, NoCapacityError):
                self._stop(made)
                raise
        return made

    def _spec(self, model: dict[str, Any], environment: Mapping[str, str]) -> ContainerSpec:
        container = model["PrimaryContainer"]
        folder = Path(tempfile.mkdtemp(dir=self._folders)) / "model"
        self._unpack(container["ModelDataUrl"], folder)
        region = self._records.region
        return ContainerSpec(
            {"AWS_REGION": region, "SAGEMAKER_REGION": region, **container.get("Environment", {}), **environment},
            port_variable="SAGEMAKER_BIND_TO_PORT",
            health_path="/ping",
            arguments=["serve"],
            folder=folder,
            mount_at=_MOUNTED_AT,
            folder_variable="SAGEMAKER_BASE_DIR",
            folder_value=folder.parent,
            grace_s=_GRACE_S,
        )

    def _unpack(self, url: str, folder: Path) -> None:
        found = _S3.fullmatch(url)
        assert found is not None
        packed = folder.with_suffix(".tar.gz")
        try:
            self._upstream.client("s3").download_file(found["bucket"], found["key"], str(packed))
        except Exception as error:  # whatever S3 answers, SageMaker says the same of it
            raise NoModelError(f"Could not access model data at {url}. {error}") from error
        with tarfile.open(packed) as archive:
            archive.extractall(folder, filter="data")  # refuses links and what climbs out
        packed.unlink()


def _kept_warm(serverless: Config) -> int:
    """How many containers a serverless variant has here, where none rests."""
    return max(1, int(serverless.get("ProvisionedConcurrency", 0)))


def _reason(error: Exception) -> str:
    if isinstance(error, NoCapacityError):
        return f"Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. {error}"
    if isinstance(error, NotHealthyError):
        return (
            "The primary container for production variant AllTraffic did not pass the ping health check. "
            "Please check CloudWatch logs for this endpoint."
        )
    return str(error)
