"""The runtime's image in Artifact Registry: which one is meant, and put there when it is not there yet.

    <region>-docker.pkg.dev/<project>/<repository>/modelserve@sha256:...

It holds the runtime only, so one serves every model; by its digest, so that what runs cannot change under its name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from google.auth.transport.requests import Request

from modelserve import image
from modelserve.errors import ImageError
from modelserve_vertex.errors import asking
from modelserve_vertex.google import Google
from modelserve_vertex.limits import WITH_ACCELERATORS
from modelserve_vertex.options import VertexOptions

_HOST = "-docker.pkg.dev"
_USER = "oauth2accesstoken"


class RuntimeImage:
    """The image that containers of one target run."""

    def __init__(self, google: Google, options: VertexOptions) -> None:
        self._google = google
        self._options = options

    @property
    def repository(self) -> str:
        options = self._options
        return f"{options.region}{_HOST}/{self._google.project}/{options.repository}/modelserve"

    def named(self) -> str:
        """The image by its name, whether it is there or not.

        Raises:
            NotSupportedError: replicas have accelerators, which the runtime's own image does not use.
        """
        if self._options.image:
            return self._options.image
        machine = self._options.machine_type
        if self._options.accelerator_type or machine.startswith(WITH_ACCELERATORS):
            image.refuse_accelerator(f"Machine {machine!r} with {self._options.accelerator_type or 'its accelerator'}")
        return f"{self.repository}:{image.tag_of(image.Recipe())}"

    def found(self) -> str | None:
        """The image by its digest; None where it was not put there yet.

        Raises:
            ImageError: the registry cannot be asked, or has no such repository.
        """
        name = self.named()
        if self._options.image or self._google.is_rehearsed:
            return name
        with self._explaining():
            reference = image.find(self.repository, credentials=self.login)
        return None if reference is None else str(reference)

    def ensured(self, tell: Callable[[str], None]) -> str:
        """The image by its digest, built and pushed where it was not there."""
        found = self.found()
        if found is not None:
            return found
        tell("Building the runtime's image: once for each version of modelserve")
        with self._explaining():
            return str(image.ensure(self.repository, credentials=self.login, on_progress=tell))

    def login(self, registry: str) -> image.Login | None:
        """The access token as a password, for Artifact Registry alone: the base's registry gets nothing of ours."""
        if not registry.endswith(_HOST):
            return None
        credentials = self._google.credentials
        if not credentials.valid:
            with asking("Renewing Google's access token"):
                credentials.refresh(Request())
        return image.Password(_USER, credentials.token)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """Says what to do where the repository is missing."""
        options = self._options
        try:
            yield
        except ImageError as error:
            raise ImageError(
                f"{error} If the repository is missing, make it: gcloud artifacts repositories create "
                f"{options.repository} --repository-format=docker --location={options.region}"
            ) from error
