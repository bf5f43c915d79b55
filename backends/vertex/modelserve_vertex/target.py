"""One target: its options, and what is reached through them."""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import version

from modelserve_vertex import storage
from modelserve_vertex.google import Google
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

    @property
    def bucket(self) -> str:
        return self.options.bucket or f"{self.google.project}-modelserve-{self.options.region}"

    @property
    def image(self) -> str:
        """The image that containers run: the runtime's own, named by its version, unless the options name another."""
        if self.options.image:
            return self.options.image
        tag = version("modelserve").replace("+", "-")
        return f"{self.options.region}-docker.pkg.dev/{self.google.project}/{self.options.repository}/modelserve:{tag}"

    def storage(self, name: str) -> BundleStorage:
        """The bundles of one deployment."""
        return BundleStorage(self.google, self.bucket, name)

    def stored_names(self) -> list[str]:
        """The deployments that have bundles in the bucket."""
        return storage.deployments(self.google, self.bucket)

    def endpoint(self, name: str) -> str:
        """The endpoint's resource name."""
        return f"{self.google.parent}/endpoints/{name}"

    def recipe(self, name: str, digest: str) -> Recipe:
        artifact_uri = storage.uri(self.bucket, name, digest)
        return Recipe(name, digest, self.google.parent, self.image, artifact_uri, self.options)
