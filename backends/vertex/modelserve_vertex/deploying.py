"""From a recipe to an endpoint that answers, by looking before each step what is there already.

    bundle in storage ─► model ─► endpoint ─► model deployed ─► all traffic to it ─► what it replaces is removed

Each thing that is about to be made is written into the journal first; a failure or Ctrl-C removes what this call made,
and only that. A deploy that outlives its deadline is no failure: it goes on there, and the next call waits for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from modelserve.backend import Scale, Servable
from modelserve.backend.journal import Entry, Journal
from modelserve.bundle import Bundle
from modelserve.errors import ConfigError, ModelServeError, NotSupportedError, OverloadedError
from modelserve_vertex import names, operations, requests, traffic
from modelserve_vertex.batch import Batches
from modelserve_vertex.canary import Canary
from modelserve_vertex.errors import status_of
from modelserve_vertex.operations import StillRunningError
from modelserve_vertex.options import VertexOptions
from modelserve_vertex.recipe import Recipe
from modelserve_vertex.resources import Resources
from modelserve_vertex.storage import BundleStorage

Tell = Callable[[str], None]


class Deploying:
    """One call of deploy or update.

    Args:
        deadline: On the monotonic clock.
    """

    def __init__(
        self,
        resources: Resources,
        storage: BundleStorage,
        batches: Batches,
        recipe: Recipe,
        *,
        deadline: float,
        tell: Tell,
    ) -> None:
        self._resources = resources
        self._storage = storage
        self._batches = batches
        self._recipe = recipe
        self._options: VertexOptions = recipe.options
        self._deadline = deadline
        self._tell = tell
        self._made: list[Entry] = []

    def standing(self) -> Any | None:
        """The endpoint as it is, once nothing is being done to it any more.

        Raises:
            ConfigError: the name belongs to an endpoint that modelserve did not make.
            StillRunningError: an earlier deploy goes on for longer than this call may take.
        """
        name, resources = self._recipe.endpoint, self._resources
        found = resources.endpoint(name)
        if found is None:
            # It may be on its way: made by a call that waited no longer.
            resources.settle(resources.google.endpoints, name)
            return resources.endpoint(name)
        if names.marks(found) is None:
            raise ConfigError(
                f"There is an endpoint {self._recipe.name!r} in {self._options.region} that modelserve did not make. "
                "Choose another name."
            )
        running = operations.running_deploy(resources.google, name)
        if running is None:
            return found
        self._tell(f"Waiting for a deploy that is under way ({names.short(running)})")
        try:
            resources.wait_deploy(running, self._deadline, self._tell)
        except StillRunningError:
            raise
        except ModelServeError as error:
            self._tell(f"That deploy failed ({error}); deploying again")
        return resources.endpoint(name)

    def is_done(self, endpoint: Any | None) -> bool:
        """Whether the endpoint answers with this model, on such machines, and with nothing else."""
        if endpoint is None:
            return False
        ids = [deployed.id for deployed in endpoint.deployed_models]
        return ids == [self._recipe.deployed_id] and dict(endpoint.traffic_split) == traffic.all_to(ids[0])

    def run(self, bundle: Bundle, endpoint: Any | None, scale: Scale, *, wait: bool = True) -> None:
        """Have the endpoint answer with the bundle.

        Args:
            endpoint: As `standing` found it.
            wait: Without it, return as soon as the deploy has begun.

        Raises:
            StillRunningError: it goes on there.
            ModelServeError: it failed; what this call made is gone again.
        """
        late: StillRunningError | None = None
        with Journal("vertex", self._recipe.name) as journal:
            try:
                self._make(journal, bundle, endpoint, scale, wait=wait)
            except StillRunningError as error:
                late = error  # nothing failed, so nothing is undone
        if late is not None:
            raise late
        if wait and endpoint is not None:
            self.tidy()

    def tidy(self) -> None:
        """Remove what the model replaced: older deployed models, their batch jobs, registrations and bundles."""
        recipe = self._recipe
        found = self._resources.endpoint(recipe.endpoint)
        if found is None:
            return
        for deployed in found.deployed_models:
            if deployed.id != recipe.deployed_id:
                self._tell(f"Undeploying {names.short(deployed.model)}")
                self._resources.undeploy(recipe.endpoint, deployed.id)
        self._batches.end_others(recipe.model)
        for model in self._resources.models(names.made_for(recipe.name)):
            if model.name != recipe.model:
                self._resources.remove_model(model.name)
        for digest in self._storage.digests():
            if digest != recipe.digest:
                self._storage.remove(digest)

    def _make(self, journal: Journal, bundle: Bundle, endpoint: Any | None, scale: Scale, *, wait: bool) -> None:
        self._store(journal, bundle)
        self._register(journal)
        if endpoint is None:
            self._create(journal)
        self._deploy(journal, endpoint, scale, wait=wait)

    def _store(self, journal: Journal, bundle: Bundle) -> None:
        if self._storage.holds(bundle.digest):
            return
        self._tell("Uploading the bundle")
        undo = partial(self._storage.remove, bundle.digest)
        entry = journal.will_create("bundle", self._recipe.artifact_uri, undo)
        self._made.append(entry)
        if not self._storage.put(bundle):
            journal.forget(entry)

    def _register(self, journal: Journal) -> None:
        model = self._recipe.model
        self._resources.settle(self._resources.google.models, model)
        if self._resources.model(model) is not None:
            return
        self._tell("Registering the model")
        with self._creating(journal, "model", model, partial(self._resources.remove_model, model)):
            self._resources.upload(requests.upload_model(self._recipe), self._deadline)

    def _create(self, journal: Journal) -> None:
        endpoint = self._recipe.endpoint
        self._tell("Creating the endpoint")
        with self._creating(journal, "endpoint", endpoint, partial(self._resources.remove_endpoint, endpoint)):
            self._resources.create(requests.create_endpoint(self._recipe), self._deadline)

    def _deploy(self, journal: Journal, endpoint: Any | None, scale: Scale, *, wait: bool) -> None:
        recipe = self._recipe
        standing = {} if endpoint is None else dict(endpoint.traffic_split)
        there = [] if endpoint is None else [deployed.id for deployed in endpoint.deployed_models]
        if recipe.deployed_id not in there:
            canary = Canary(self._resources, recipe, self._options, self._tell)
            is_tried = bool(standing and self._options.canary_percent)
            if is_tried:
                canary.prepare()
            operation = self._start(journal, scale, standing)
            if not wait and not standing:
                return
            self._resources.wait_deploy(operation, self._deadline, self._tell)
            if is_tried:
                canary.hold()
        self._resources.move_traffic(recipe.endpoint, traffic.all_to(recipe.deployed_id), recipe.labels)

    def _start(self, journal: Journal, scale: Scale, standing: dict[str, int]) -> str:
        recipe, options = self._recipe, self._options
        self._tell(f"Deploying to {options.machine_type}: billed from now on, with or without requests, until deleted")
        split = traffic.first(options.canary_percent, standing)
        request = requests.deploy_model(recipe.endpoint, recipe.model, options, scale, split)
        undo = partial(self._resources.undeploy, recipe.endpoint, recipe.deployed_id)
        with self._creating(journal, "deployed model", f"{recipe.endpoint} {recipe.deployed_id}", undo):
            return self._resources.start_deploy(request)

    @contextlib.contextmanager
    def _creating(self, journal: Journal, kind: str, identity: str, undo: Callable[[], None]) -> Iterator[None]:
        """Around a creation: written down before it, and left alone where another program was quicker.

        Names are made of what they stand for, so that program may be using everything that this call has made.
        """
        self._made.append(journal.will_create(kind, identity, undo))
        try:
            yield
        except ModelServeError as error:
            if status_of(error.__cause__ or error) != "ALREADY_EXISTS":
                raise
            for entry in self._made:
                journal.forget(entry)
            raise OverloadedError(
                f"Another program serves {self._recipe.name!r} at this moment: the {kind} is there now. Serve it again."
            ) from error


def require_bundle(servable: Servable) -> Bundle:
    """The servable as a bundle.

    Raises:
        NotSupportedError: it is a live callable.
    """
    if isinstance(servable, Bundle):
        return servable
    raise NotSupportedError(f"Vertex AI runs portable models only: {servable.reason} Serve it on a local target.")
