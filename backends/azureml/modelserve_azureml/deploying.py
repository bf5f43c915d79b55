"""From a bundle to an endpoint that answers, and from one version of the model to the next.

    deploy  model ─ environment ─ endpoint ─ deployment ─ traffic ─ autoscale
    update  model ─ environment ─ a second deployment ─ mirror, canary ─ all traffic ─ the first one goes

Each step is written down before it is taken; a failure takes back what this call made, the last thing first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from modelserve.backend import Scale
from modelserve.backend.journal import Journal
from modelserve.backend.marks import Marks
from modelserve.errors import AccessDeniedError, BackendError, ConfigError, ModelServeError, StartError
from modelserve_azureml import autoscale, bodies
from modelserve_azureml.arm import Arm, merged
from modelserve_azureml.logs import tail
from modelserve_azureml.names import marks
from modelserve_azureml.proving import prove
from modelserve_azureml.site import Site, Version, route

Progress = Callable[[str], None]
#: Longest time for taking something back; it counts from then, whatever the deploy had left.
UNDO_S = 1800.0
_TELL_S = 15.0


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
        prove(version, old, deadline, tell)
        if scale is not None and not scale.is_fixed:
            put_autoscale(site, version.endpoint, version.deployment, scale, version.capacity)
        route(site, version.endpoint, {version.deployment: 100}, deadline=deadline)
    except BaseException:
        # Before the new version can go, requests must go to the old one again.
        route(site, version.endpoint, {old: 100}, deadline=time.monotonic() + UNDO_S)
        raise


def tidy(site: Site, endpoint: str, kept: str) -> None:
    """Take away all versions but one, with what was registered for them; also those that an earlier update left."""
    for deployment in site.arm.every(f"{site.workspace.endpoint(endpoint)}/deployments"):
        if deployment["name"] != kept and marks(deployment) is not None:
            retire(site, endpoint, deployment["name"])
    properties = site.arm.ask("GET", site.workspace.deployment(endpoint, kept))["properties"]
    site.assets.forget_all(endpoint, but=frozenset({properties["model"], properties["environmentId"]}))


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
