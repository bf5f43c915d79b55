"""One target: its options, and what is reached through them."""

from __future__ import annotations

from functools import cached_property

from modelserve_vertex import storage
from modelserve_vertex.batch import Batches, BatchPredictions
from modelserve_vertex.google import Google
from modelserve_vertex.images import RuntimeImage
from modelserve_vertex.options import VertexOptions
from modelserve_vertex.recipe import Recipe
from modelserve_vertex.resources import Resources
from modelserve_vertex.storage import BundleStorage


class Target:
    """Opens nothing before it is needed."""

    def __init__(self, options: VertexOptions) -> None:
        self.options = options
        self.google = Google(options)

    @cached_property
    def resources(self) -> Resources:
        return Resources(self.google, self.options)

    @cached_property
    def batch_predictions(self) -> BatchPredictions:
        return BatchPredictions(self.google, self.resources, self.options.poll_s)

    @property
    def bucket(self) -> str:
        return self.options.bucket or f"{self.google.project}-modelserve-{self.options.region}"

    @cached_property
    def image(self) -> RuntimeImage:
        """The image that containers run."""
        return RuntimeImage(self.google, self.options)

    def storage(self, name: str) -> BundleStorage:
        """The bundles of one deployment."""
        return BundleStorage(self.google, self.bucket, name)

    def batches(self, name: str) -> Batches:
        """The batch jobs of one deployment."""
        return Batches(self.batch_predictions, self.options, bucket=self.bucket, deployment=name)

    def stored_names(self) -> list[str]:
        """The deployments that have bundles in the bucket."""
        return storage.deployments(self.google, self.bucket)

    def endpoint(self, name: str) -> str:
        """The endpoint's resource name."""
        return f"{self.google.parent}/endpoints/{name}"

    def recipe(self, name: str, digest: str, image: str) -> Recipe:
        """What the deployment of this bundle is made of; `image` is a reference."""
        artifact_uri = storage.uri(self.bucket, name, digest)
        return Recipe(name, digest, self.google.parent, image, artifact_uri, self.options)
