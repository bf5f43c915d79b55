"""Everything that modelserve made in one project and region, found by its labels and its folder in the bucket."""

from __future__ import annotations

from modelserve.backend import EndpointStatus
from modelserve.backend import journal as journals
from modelserve_vertex import names, state
from modelserve_vertex.target import Target


def statuses(target: Target) -> list[EndpointStatus]:
    """One for each deployment, and a failed one for each that has no endpoint any more, or never had."""
    found = [state.status(target.resources, endpoint) for endpoint in target.resources.endpoints()]
    known = {status.name for status in found}
    left: dict[str, str] = {}
    for model in target.resources.models():
        marks = names.marks(model)
        if marks is not None and marks.deployment not in known:
            left[marks.deployment] = f"model {names.short(model.name)!r}"
    for job in target.batch_predictions.matching():
        marks = names.marks(job)
        if marks is not None and marks.deployment not in known:
            left.setdefault(marks.deployment, f"batch job {job.display_name!r}")
    for name in target.stored_names():
        if name not in known:
            left.setdefault(name, f"bundles in gs://{target.bucket}")
    return found + [state.left_behind(name, what) for name, what in sorted(left.items())]


def remove(target: Target, name: str) -> None:
    """Remove everything that was made for one deployment, whatever of it is left. Quiet when there is nothing."""
    resources, endpoint = target.resources, target.endpoint(name)
    target.batches(name).end_all()
    found = resources.endpoint(endpoint)
    if found is None or names.marks(found) is not None:
        resources.remove_endpoint(endpoint)
    for model in resources.models(names.made_for(name)):
        resources.remove_model(model.name)
    storage = target.storage(name)
    for digest in storage.digests():
        storage.remove(digest)
    journals.settle(list(journals.unfinished("vertex", name)))
