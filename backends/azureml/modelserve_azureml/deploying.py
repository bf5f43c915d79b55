"""From a bundle to an endpoint that answers, and from one version of the model to the next.

deploy  model ─ environment ─ endpoint ─ deployment ─ traffic ─ autoscale
update  model ─ environment ─ a second deployment ─ mirror, canary ─ all traffic ─ the first one goes

Each step is written down before it is taken; a failure takes back what this call made, the last thing first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from modelserve.backend import Scale
from modelserve.backend.journal import Journal
from modelserve.backend.marks import Marks
from modelserve.bundle import Bundle
from modelserve.errors import AccessDeniedError, BackendError, ConfigError, ModelServeError, StartError
from modelserve_azureml import autoscale, bodies
from modelserve_azureml.arm import Arm, merged
from modelserve_azureml.assets import Assets
from modelserve_azureml.logs import tail
from modelserve_azureml.names import Workspace, deployment_name, marks, tags
from modelserve_azureml.options import AzureMLOptions
from modelserve_azureml.validation import Kind, check

Progress = Callable[[str], None]
#: Longest time for taking something back; it counts from then, whatever the deploy had left.
UNDO_S = 1800.0
_TELL_S = 15.0


@dataclass(frozen=True, slots=True)
class Site:
    """One endpoint's place: the workspace, its region, and who talks to it."""

    workspace: Workspace
    arm: Arm
    assets: Assets
    options: AzureMLOptions

    @property
    def region(self) -> str:
        return str(self.arm.ask("GET", self.workspace.path)["location"])


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the model behind an endpoint: what a deploy or an update is to bring up."""

    site: Site
    endpoint: str
    name: str
    bundle: Bundle
    image: str
    capacity: int

    @property
    def deployment(self) -> str:
        return deployment_name(self.bundle.digest)

    @property
    def tags(self) -> dict[str, str]:
        return tags(self.site.options.tags, Marks.of(self.name, self.bundle.digest))


def create(version: Version, scale: Scale | None, journal: Journal, deadline: float, tell: Progress) -> None:
    """A new endpoint with one version that gets all requests."""
    site, region = version.site, version.site.region
    model, environment = _assets(version, journal, tell)
    path = site.workspace.endpoint(version.endpoint)
    tell(f"Creating endpoint {version.endpoint} in {region}")
    journal.will_create("endpoint", path, lambda: remove(site.arm, path))
    body = bodies.endpoint(version.endpoint, region, site.options, version.tags)
    site.arm.operate("PUT", path, body, deadline=deadline)
    _start(version, region, model, environment, journal, deadline, tell)
    route(site, version.endpoint, {version.deployment: 100}, deadline=deadline)
    if scale is not None and not scale.is_fixed:
        put_autoscale(site, version.endpoint, version.deployment, scale, version.capacity)
    tell(
        f"It answers, and it is billed by the hour for {version.capacity} x {site.options.instance_type} until deleted"
    )


def replace(version: Version, old: str, scale: Scale | None, journal: Journal, deadline: float, tell: Progress) -> None:
    """Another version gets all requests; the old one gets them until the new one has proved itself."""
    site, region = version.site, version.site.region
    model, environment = _assets(version, journal, tell)
    _start(version, region, model, environment, journal, deadline, tell)
    try:
        _prove(version, old, deadline, tell)
        route(site, version.endpoint, {version.deployment: 100}, deadline=deadline)
    except BaseException:
        # Before the new version can go, requests must go to the old one again.
        route(site, version.endpoint, {old: 100}, deadline=time.monotonic() + UNDO_S)
        raise
    if scale is not None and not scale.is_fixed:
        put_autoscale(site, version.endpoint, version.deployment, scale, version.capacity)


def withdraw(site: Site, endpoint: str, deployment: str) -> None:
    """Remove a version whether or not requests are sent to it. Quiet when it is gone already."""
    found = site.arm.find(site.workspace.endpoint(endpoint))
    if found is None:
        return
    properties = found["properties"]
    # Azure deletes no version that gets requests.
    if deployment in {**(properties.get("traffic") or {}), **(properties.get("mirrorTraffic") or {})}:
        route(site, endpoint, {}, deadline=time.monotonic() + UNDO_S)
    retire(site, endpoint, deployment)


def retire(site: Site, endpoint: str, deployment: str) -> None:
    """Take away a version that gets no requests any more, with its autoscale setting."""
    site.arm.ask("DELETE", site.workspace.autoscale(endpoint, deployment), version=autoscale.API_VERSION)
    remove(site.arm, site.workspace.deployment(endpoint, deployment))


def route(
    site: Site,
    endpoint: str,
    live: Mapping[str, int],
    mirrored: Mapping[str, int] | None = None,
    *,
    deadline: float,
) -> None:
    """Divide requests among the versions, and change nothing else of the endpoint."""
    path = site.workspace.endpoint(endpoint)
    body = merged(site.arm.ask("GET", path), traffic=dict(live), mirrorTraffic=dict(mirrored or {}))
    check(Kind.ENDPOINT, endpoint, body)
    site.arm.operate("PUT", path, body, deadline=deadline)


def tag(site: Site, endpoint: str, wanted: Mapping[str, str], *, deadline: float) -> None:
    """Have an endpoint say what it runs now."""
    path = site.workspace.endpoint(endpoint)
    body = {**merged(site.arm.ask("GET", path)), "tags": dict(wanted)}
    site.arm.operate("PUT", path, body, deadline=deadline)


def put_autoscale(site: Site, endpoint: str, deployment: str, scale: Scale, capacity: int) -> None:
    """Let Azure Monitor choose the number of instances between two bounds."""
    workspace = site.workspace
    found = site.arm.ask("GET", workspace.deployment(endpoint, deployment))
    body = autoscale.setting(
        workspace.deployment(endpoint, deployment),
        workspace.endpoint(endpoint),
        found["location"],
        scale,
        capacity,
        found.get("tags") or {},
    )
    site.arm.ask("PUT", workspace.autoscale(endpoint, deployment), body, version=autoscale.API_VERSION)


def remove(arm: Arm, path: str) -> None:
    """Delete a resource and wait until it is gone. Quiet when it is already."""
    if arm.find(path) is not None:
        arm.operate("DELETE", path, deadline=time.monotonic() + UNDO_S)


def require_ours(content: Mapping[str, Any], name: str) -> Marks:
    """The marks of an endpoint of that name.

    Raises:
        ConfigError: somebody else made it.
    """
    found = marks(content)
    if found is None or found.deployment != name:
        owner = f"for deployment {found.deployment!r}" if found else "by somebody else"
        raise ConfigError(
            f"The endpoint {content['name']!r} was made {owner}. Give another name, or the option endpoint_name."
        )
    return found


def _assets(version: Version, journal: Journal, tell: Progress) -> tuple[str, str]:
    assets = version.site.assets
    environment = assets.environment(version.endpoint, version.image, version.tags, journal)
    return assets.model(version.endpoint, version.bundle, version.tags, journal, tell), environment


def _start(
    version: Version,
    region: str,
    model: str,
    environment: str,
    journal: Journal,
    deadline: float,
    tell: Progress,
) -> None:
    site, name = version.site, version.deployment
    path = site.workspace.deployment(version.endpoint, name)
    body = bodies.deployment(
        name,
        region,
        site.options,
        model=model,
        environment=environment,
        capacity=version.capacity,
        tags=version.tags,
    )
    tell(f"Starting {version.capacity} x {site.options.instance_type}; this takes some minutes")
    journal.will_create("deployment", path, lambda: withdraw(site, version.endpoint, name))
    try:
        site.arm.operate("PUT", path, body, deadline=deadline, watch=_every(_TELL_S, tell))
    except (ConfigError, AccessDeniedError):
        raise
    except BackendError as error:
        raise _with_logs(error, site, path) from error


def _every(seconds: float, tell: Progress) -> Callable[[], None]:
    """Tells how long something has been starting, now and then."""
    begun = time.monotonic()
    told = begun

    def watch() -> None:
        nonlocal told
        if time.monotonic() - told >= seconds:
            told = time.monotonic()
            tell(f"Starting ({told - begun:.0f} s)")

    return watch


def _with_logs(error: BackendError, site: Site, path: str) -> ModelServeError:
    """The error with what the containers wrote, which is gone as soon as the deployment is."""
    if type(error) is not BackendError:
        return error
    try:
        lines = tail(site.arm, path)
    except ModelServeError:
        lines = []
    shown = "\n".join(lines[-20:]) or "The containers wrote nothing."
    return StartError(f"{error}\n{shown}")


def _prove(version: Version, old: str, deadline: float, tell: Progress) -> None:
    """Give the new version copies of requests, then a share of them, and look at how it does after each."""
    options = version.site.options
    stages: list[tuple[str, dict[str, int], dict[str, int]]] = []
    if options.mirror_percent:
        stages.append(("mirror", {old: 100}, {version.deployment: options.mirror_percent}))
    if options.canary_percent:
        share = options.canary_percent
        stages.append(("canary", {old: 100 - share, version.deployment: share}, {}))
    for stage, live, mirrored in stages:
        tell(f"{stage.capitalize()}: {live or mirrored} for {options.bake_s:g} s")
        route(version.site, version.endpoint, live, mirrored, deadline=deadline)
        time.sleep(min(options.bake_s, max(0.0, deadline - time.monotonic())))
        _judge(version, stage)


def _judge(version: Version, stage: str) -> None:
    """Refuse a version that answered requests with errors of its own.

    Raises:
        StartError: it did.
    """
    failed = _failed_requests(version)
    if failed:
        raise StartError(
            f"The new version failed {failed:g} requests as {stage}; the old one answers again. "
            "See the messages of these requests, and update again."
        )


def _failed_requests(version: Version) -> float:
    """Requests of the last minutes that this version answered with 5xx or 424, as Azure Monitor counted them."""
    site = version.site
    wanted = f"deployment eq '{version.deployment}' and statusCodeClass eq '5xx'"
    path = (
        f"{site.workspace.endpoint(version.endpoint)}/providers/Microsoft.Insights/metrics"
        f"?metricnames=RequestsPerMinute&aggregation=Total&interval=PT1M&$filter={wanted}"
    )
    content = site.arm.ask("GET", path, version="2018-01-01")
    points = (
        point
        for metric in content.get("value") or []
        for series in metric.get("timeseries") or []
        for point in series.get("data") or []
    )
    return sum(point.get("total") or 0.0 for point in points)
