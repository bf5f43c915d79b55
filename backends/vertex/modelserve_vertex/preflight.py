"""Checks before anything is billed: the requests themselves, then what a look at the project can tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from modelserve.backend import DeploymentSpec, Finding, Scale, Servable
from modelserve.backend.preflight import Check, OnlyLive, Skipped, look_all
from modelserve.bundle import Bundle
from modelserve.errors import AccessDeniedError, ConfigError, DeploymentNotFoundError, InputError, ModelServeError
from modelserve.wire import encode_request
from modelserve_vertex import limits, requests, traffic
from modelserve_vertex.deploying import require_bundle
from modelserve_vertex.machines import memory_bytes
from modelserve_vertex.policy import CALLER, of_caller
from modelserve_vertex.target import Target
from modelserve_vertex.validation import require_kept

_SHOWN = 6
_STORAGE = "storage."
#: A worker's own memory beside the weights, which all workers share.
_WORKER_BYTES = 150 << 20
_MIB = 1 << 20


def findings(target: Target, servable: Servable, spec: DeploymentSpec) -> list[Finding]:
    """What every check came to."""
    bundle = require_bundle(servable)
    scale = spec.scale or Scale.fixed(1)
    looks: list[tuple[str, Callable[[], str]]] = [
        ("requests", lambda: _requests(target, bundle, spec.name, scale)),
        ("payload", lambda: _payload(target, bundle)),
        ("memory", lambda: _memory(target, bundle)),
        ("credentials", lambda: f"Project {target.google.project!r}, region {target.options.region!r}."),
        ("permissions", lambda: _permissions(target)),
        ("bucket", lambda: _bucket(target)),
        ("image", lambda: _image(target)),
        ("quota", lambda: _quota(target, scale)),
    ]
    return look_all(Check(name, look) for name, look in looks)


def _requests(target: Target, bundle: Bundle, name: str, scale: Scale) -> str:
    """Every request that a deploy sends, by the service's own rules."""
    recipe = target.recipe(name, bundle.digest, target.image.named())
    sent = [
        requests.upload_model(recipe),
        requests.create_endpoint(recipe),
        requests.deploy_model(recipe.endpoint, recipe.model, target.options, scale, {traffic.INCOMING: 100}),
    ]
    require_kept(*sent)
    return f"The {len(sent)} requests keep the rules of fields, names, labels, machines and replicas."


def _payload(target: Target, bundle: Bundle) -> str:
    size = encode_request(bundle.example()).size_bytes
    most = limits.KIND_LIMITS[target.options.endpoint].payload_bytes
    if size > most:
        raise InputError(
            f"The example takes {size} bytes, and endpoints of kind {target.options.endpoint.value!r} take {most} at "
            "once. Send fewer rows, or use endpoint = 'dedicated'."
        )
    return f"The example takes {size} of {most} bytes."


def _memory(target: Target, bundle: Bundle) -> str:
    machine = target.options.machine_type
    there = memory_bytes(machine)
    if there is None:
        raise OnlyLive(f"The memory of {machine!r} is not known here.")
    needed = bundle.size_bytes * 2 + _WORKER_BYTES * (target.options.workers or 1)
    if needed > there:
        raise ConfigError(
            f"The model takes some {needed // _MIB} MiB on a machine and {machine!r} has {there // _MIB}. "
            "Choose a larger machine_type, or fewer workers."
        )
    return f"Some {needed // _MIB} of {there // _MIB} MiB of {machine!r}."


def _permissions(target: Target) -> str:
    google = target.google
    address = f"{google.address('cloudresourcemanager')}/v1/projects/{google.project}:testIamPermissions"
    asked = [one for one in of_caller(target.options) if not one.startswith(_STORAGE)]
    try:
        held = google.post(address, {"permissions": asked}, "Asking for the caller's permissions")
    except ModelServeError as error:
        # Another API, which need not be enabled for deploying.
        raise Skipped(f"They could not be asked for: {error}") from error
    return _all_held(asked, held, f"project {google.project!r}")


def _bucket(target: Target) -> str:
    google, region = target.google, target.options.region
    address = f"{google.address('storage')}/storage/v1/b/{target.bucket}"
    try:
        found = google.get(address, "Looking for the bucket")
    except DeploymentNotFoundError as error:
        raise ConfigError(
            f"There is no bucket gs://{target.bucket}. Create it: gcloud storage buckets create gs://{target.bucket} "
            f"--location={region}, or name another by the option bucket."
        ) from error
    except AccessDeniedError as error:
        # Whoever may write objects need not be allowed to look at their bucket.
        raise Skipped(f"gs://{target.bucket} could not be looked at: {error}") from error
    place = str(found.get("location", "")).lower()
    if place != region:
        raise ConfigError(
            f"The bucket gs://{target.bucket} is in {place!r}; it must be in {region!r}, as the endpoint is."
        )
    asked = [one for one in CALLER if one.startswith(_STORAGE)]
    held = google.get(
        f"{address}/iam/testPermissions?{urlencode({'permissions': asked}, doseq=True)}", "Asking for them"
    )
    return f"It is in {place!r}. {_all_held(asked, held, f'gs://{target.bucket}')}"


def _all_held(asked: Sequence[str], held: Mapping[str, Any], where: str) -> str:
    lacking = [one for one in asked if one not in held.get("permissions", [])]
    if lacking:
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        raise AccessDeniedError(
            f"The caller lacks {', '.join(lacking[:_SHOWN])}{more} in {where}. "
            "'modelserve policy' prints a role that has them."
        )
    return f"The caller has the {len(asked)} permissions that are needed in {where}."


def _image(target: Target) -> str:
    region, name = target.options.region, target.image.named()
    host = name.partition("/")[0]
    if host.endswith("-docker.pkg.dev") and host != f"{region}-docker.pkg.dev":
        raise ConfigError(
            f"The image {name!r} is in another region than {region!r}. Push it to {region}-docker.pkg.dev."
        )
    if target.google.is_rehearsed:
        raise OnlyLive(f"That {name!r} exists, and that the service agent may pull it.")
    found = target.image.found()
    if found is None:
        return f"{name!r} is not there yet: it is built and pushed before the first deploy, some hundred megabytes."
    return f"{found!r}; Vertex AI takes it in when the model is registered."


def _quota(target: Target, scale: Scale) -> str:
    options = target.options
    wanted = f"{scale.maximum} x {options.machine_type}"
    if options.accelerator_type:
        wanted += f" with {options.accelerator_count} {options.accelerator_type}"
    raise OnlyLive(
        f"Whether the quota of the region has room for {wanted} (the maximum counts), and whether there are any."
    )
