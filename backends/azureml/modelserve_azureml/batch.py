"""A data set through the workspace's batch endpoints: all that a job needs is made for it, and goes with it.

    parts ──► storage ─ code ─ environment ─ cluster ─ batch endpoint ─ deployment ──► job

The model is the one that answers at the online endpoint. Each step is written down before it is taken; a failure, or
Ctrl-C, takes back what this call made.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any

from modelserve.backend import Job, WorkPart
from modelserve.backend.journal import Journal
from modelserve.backend.preflight import look_all, require_passed
from modelserve.errors import AccessDeniedError, DeploymentNotFoundError
from modelserve_azureml import batch_bodies, deploying
from modelserve_azureml.batch_job import AzureMLJob, BatchPlace, end, folder, remove_cluster
from modelserve_azureml.batch_preflight import batch_checks
from modelserve_azureml.site import Site


def begin(site: Site, endpoint: str, deployment: str, work: str, parts: Iterable[WorkPart], version: Any) -> Job:
    """The job of that name, begun where it is not there yet.

    Args:
        endpoint: The online endpoint's name.
        deployment: The name that the user gave.
        version: What answers at the endpoint, as the resource manager shows it: its model answers the job.
    """
    place = BatchPlace(site, endpoint, work)
    if place.is_there():
        return AzureMLJob(place)
    require_passed(look_all(batch_checks(site)), f"A batch job for {deployment!r}")
    place.remove()
    with Journal("azureml", deployment) as journal:
        _made(place, parts, version, journal)
    return AzureMLJob(place)


def remove_all(site: Site, endpoint: str) -> None:
    """Remove an endpoint's jobs, those that a killed process left half-made, too."""
    start = folder(endpoint)
    try:
        found = {name.removeprefix(start).partition("/")[0] for name in site.store.names(start)}
    except (AccessDeniedError, DeploymentNotFoundError):
        # Who may not look there, or has no such storage, made no job.
        return
    for work in sorted(found):
        BatchPlace(site, endpoint, work).remove()


def _made(place: BatchPlace, parts: Iterable[WorkPart], version: Any, journal: Journal) -> None:
    site, tags = place.site, version.get("tags") or {}
    deadline = time.monotonic() + site.options.timeout_s
    journal.will_create("files", place.prefix, lambda: site.store.remove(f"{place.prefix}/"))
    count = 0
    for part in parts:
        site.store.put(place.sent(part.number), part.lines)
        count += 1
    if not count:
        place.record("")
        return
    region = site.region
    code = site.assets.code(place.code, tags, journal)
    environment = site.options.batch_environment or _environment(place, tags, journal)
    cluster = _cluster(place, region, tags, journal, deadline)
    journal.will_create("batch endpoint", place.path, lambda: deploying.remove(site.arm, place.path))
    site.arm.operate("PUT", place.path, batch_bodies.endpoint(place.name, region, tags), deadline=deadline)
    body = batch_bodies.deployment(
        region,
        site.options,
        model=version["properties"]["model"],
        environment=environment,
        code=code,
        cluster=cluster,
        tags=tags,
    )
    site.arm.operate("PUT", place.deployment, body, deadline=deadline)
    _asked(place, journal)


def _environment(place: BatchPlace, tags: Mapping[str, str], journal: Journal) -> str:
    path, assets = place.environment, place.site.assets
    journal.will_create("environment", path, lambda: assets.forget(path))
    place.site.arm.ask("PUT", path, batch_bodies.environment(tags))
    return path


def _cluster(place: BatchPlace, region: str, tags: Mapping[str, str], journal: Journal, deadline: float) -> str:
    """The cluster that the option names, or one that is made."""
    site, path = place.site, place.cluster
    if site.options.batch_cluster:
        return site.workspace.compute(site.options.batch_cluster)
    journal.will_create("cluster", path, lambda: remove_cluster(site, path))
    body = batch_bodies.cluster(path.rpartition("/")[2], region, site.options, tags)
    site.arm.operate("PUT", path, body, deadline=deadline)
    return path


def _asked(place: BatchPlace, journal: Journal) -> None:
    """Begin the job. Its name is ours, so that it is found even if no answer comes."""
    site = place.site
    uri = site.arm.ask("GET", place.path)["properties"]["scoringUri"]
    # Another one each time: the service may keep the record of a job that was deleted.
    wanted = f"{place.name}-{secrets.token_hex(4)}"
    journal.will_create("job", wanted, lambda: end(site, wanted))
    place.record(wanted)
    job = site.door.begin(
        uri, batch_bodies.DEPLOYMENT, batch_bodies.invocation(wanted, site.store.name, place.prefix), wanted
    )
    if job != wanted:
        journal.will_create("job", job, lambda: end(site, job))
        place.record(job)
