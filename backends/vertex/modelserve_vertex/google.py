"""Everything that is asked of Google for one target: credentials, addresses, clients.

The GAPIC clients talk REST, never gRPC: the program around this one may fork, and gRPC does not survive that.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import google.auth
from google.api_core import exceptions as google_errors
from google.api_core import retry as google_retry
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import aiplatform_v1 as v1
from google.cloud import storage
from google.oauth2 import service_account

from modelserve.errors import ConfigError
from modelserve_vertex.errors import asking
from modelserve_vertex.options import VertexOptions

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)


class Google:
    """One project in one region."""

    def __init__(self, options: VertexOptions) -> None:
        self._options = options

    @property
    def region(self) -> str:
        return self._options.region

    @cached_property
    def project(self) -> str:
        """The project's id.

        Raises:
            ConfigError: neither the options nor the credentials name one.
        """
        found = self._options.project or self._found[1]
        if not found:
            raise ConfigError("No project is named. Give the option project, or set GOOGLE_CLOUD_PROJECT.")
        return str(found)

    @property
    def parent(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def api_address(self) -> str:
        """The region's own host: the one without a region answers 404 or 501."""
        return self._options.api_address or f"https://{self.region}-aiplatform.googleapis.com"

    @property
    def is_rehearsed(self) -> bool:
        """Whether a stand-in on this machine is asked, which also stands for the other services."""
        return urlsplit(self._options.api_address).scheme == "http"

    def address(self, service: str) -> str:
        """Of another of Google's services, such as 'logging'."""
        return self._options.api_address if self.is_rehearsed else f"https://{service}.googleapis.com"

    @property
    def credentials(self) -> Any:
        return self._found[0]

    @cached_property
    def models(self) -> Any:
        return self._client(v1.ModelServiceClient)

    @cached_property
    def endpoints(self) -> Any:
        return self._client(v1.EndpointServiceClient)

    @cached_property
    def jobs(self) -> Any:
        return self._client(v1.JobServiceClient)

    @cached_property
    def session(self) -> Any:
        """For services without a client of their own here."""
        return AuthorizedSession(self.credentials)

    @cached_property
    def storage(self) -> Any:
        address = {"api_endpoint": self.address("storage")} if self.is_rehearsed else None
        return storage.Client(self.project, credentials=self.credentials, client_options=address)

    @property
    def reading(self) -> dict[str, Any]:
        """How a call is made that changes nothing: again where the service is busy or absent."""
        return self._again(google_errors.TooManyRequests, google_errors.ServiceUnavailable, google_errors.BadGateway)

    @property
    def writing(self) -> dict[str, Any]:
        """How a call is made that changes something: again only where it was surely not done."""
        return self._again(google_errors.TooManyRequests)

    def post(self, address: str, content: dict[str, Any], doing: str) -> dict[str, Any]:
        """What a service without a client of its own here answers to a request in JSON."""
        with asking(doing):
            answer = self.session.post(address, json=content, timeout=self._options.call_timeout_s)
            if not answer.ok:
                raise google_errors.from_http_response(answer)
            found: dict[str, Any] = answer.json()
            return found

    def get(self, address: str, doing: str) -> dict[str, Any]:
        """As `post`, for what is only read."""
        with asking(doing):
            answer = self.session.get(address, timeout=self._options.call_timeout_s)
            if not answer.ok:
                raise google_errors.from_http_response(answer)
            found: dict[str, Any] = answer.json()
            return found

    def _again(self, *kinds: type[Exception]) -> dict[str, Any]:
        # The library's own methods have neither a deadline nor a retry unless they are given.
        seconds = self._options.call_timeout_s
        predicate = google_retry.if_exception_type(*kinds)
        again = google_retry.Retry(predicate, initial=self._options.poll_s / 4, maximum=10, timeout=seconds)
        return {"timeout": seconds, "retry": again}

    @cached_property
    def _found(self) -> tuple[Any, str | None]:
        """Credentials and the project that comes with them."""
        if self.is_rehearsed:
            # No token ever travels over plain HTTP.
            return AnonymousCredentials(), None
        file = self._options.credentials
        with asking("Reading Google's credentials"):
            if file is not None:
                made = service_account.Credentials.from_service_account_file(str(file), scopes=_SCOPES)
                return made, made.project_id
            found, project = google.auth.default(scopes=_SCOPES)
            return found, project

    def _client(self, kind: Any) -> Any:
        return kind(credentials=self.credentials, transport="rest", client_options={"api_endpoint": self.api_address})
