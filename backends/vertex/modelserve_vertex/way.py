"""Where an endpoint is asked, by its kind.

    dedicated   https://<its own name>/v1/<endpoint>:rawPredict
    shared      https://<region>-aiplatform.googleapis.com/v1/<endpoint>:rawPredict
    psc         <predict_address>/v1/<endpoint>:rawPredict
    private     http://<told by the deployed model>

psc is the forwarding rule of the caller's network; private lies in the peered network, and is asked without a token.
Of dedicated and psc the same path with :streamRawPredict gives the answer in pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from modelserve.errors import ConfigError, NotReadyError
from modelserve_vertex import names, state
from modelserve_vertex.limits import require_streams
from modelserve_vertex.options import EndpointKind


@dataclass(frozen=True, slots=True)
class Way:
    """How requests reach one endpoint.

    Attributes:
        address: Of the host that is connected to, scheme included.
        host: The name that stands in requests where it is not the address's own.
        has_token: Whether requests carry an access token.
    """

    address: str
    path: str
    host: str = ""
    has_token: bool = True


def way_to(endpoint: Any, api_address: str, predict_address: str, *, streams: bool = False) -> Way:
    """The way to an endpoint as the service describes it.

    Args:
        streams: Whether answers are to come in pieces.

    Raises:
        ConfigError: only the caller's own network knows the address, and predict_address does not say it; or answers
            are to come in pieces, and those of this kind do not.
        NotReadyError: nothing is deployed, and it is the deployed model that tells the address.
    """
    kind = state.kind(endpoint)
    if streams:
        require_streams(kind)
    path = f"/v1/{endpoint.name}:{'streamRawPredict' if streams else 'rawPredict'}"
    if kind is EndpointKind.PRIVATE:
        return _private(endpoint)
    own = endpoint.dedicated_endpoint_dns.removeprefix("https://").rstrip("/")
    if predict_address:
        return Way(predict_address, path, own)
    if kind is EndpointKind.PRIVATE_SERVICE_CONNECT:
        raise ConfigError(
            f"{names.short(endpoint.name)!r} is reached through a forwarding rule of your own network. "
            "Give its address as predict_address."
        )
    return Way(f"https://{own}", path) if kind is EndpointKind.DEDICATED and own else Way(api_address, path)


def _private(endpoint: Any) -> Way:
    deployed = state.answering(endpoint)
    told = "" if deployed is None else deployed.private_endpoints.predict_http_uri
    if not told:
        raise NotReadyError(f"{names.short(endpoint.name)!r} has no address: nothing is deployed to it now.")
    parts = urlsplit(told)
    return Way(f"{parts.scheme}://{parts.netloc}", parts.path, has_token=False)
