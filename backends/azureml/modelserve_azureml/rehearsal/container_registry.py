"""<name>.azurecr.io: the workspace's container registry, with Azure's own way of signing in before the registry's.

    token of Entra ID ──/oauth2/exchange──► refresh token ──/oauth2/token──► one for a repository ──► /v2/...

What is behind is the project's registry stand-in: strict to the specification, and with Azure's limit for one request.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlencode

import httpx

from modelserve.image import Reference
from modelserve.standin.loopback import Answered
from modelserve.standin.registry import Door, RegistryStandIn
from modelserve.standin.registry.access import REFRESH_TOKEN
from modelserve_azureml.rehearsal.calls import Call, Refusal
from modelserve_azureml.rehearsal.sign_in import SignIn

#: Larger bodies were answered 413: https://github.com/goharbor/harbor/issues/21640
_MOST_BYTES = 20 << 20
_LONGEST_S = 60.0
_OF_A_HOP = {"connection", "transfer-encoding", "date", "server", "host"}


class ContainerRegistry:
    """A registry under its name at Azure.

    Attributes:
        inside: The stand-in, whose contents a test may look into, and fill.
    """

    def __init__(self, host: str, sign_in: SignIn) -> None:
        self._host = host
        self._sign_in = sign_in
        self.inside = RegistryStandIn(door=Door.TOKEN, most_bytes=_MOST_BYTES).__enter__()
        self._client = httpx.Client(base_url=self.inside.url, timeout=_LONGEST_S, trust_env=False)

    def operation(self, call: Call) -> str:
        """The name by which faults are planned for a call."""
        return "Registry.Exchange" if call.path == "/oauth2/exchange" else f"Registry.{call.method}"

    def has(self, image: str) -> bool:
        """Whether an image was pushed."""
        place = Reference.parse(image)
        return place.registry == self._host and (place.repository, place.version) in self.inside.contents.manifests

    def answer(self, call: Call) -> Answered:
        if call.path == "/oauth2/exchange":
            return self._sign_in.exchanged(call)
        if call.path == "/oauth2/token":
            return self._token(call)
        target = call.path + (f"?{urlencode(call.query)}" if call.query else "")
        return self._passed(call.method, target, dict(call.headers), call.body)

    def close(self) -> None:
        self._client.close()
        self.inside.__exit__()

    def _token(self, call: Call) -> Answered:
        """A token of the registry's for one that the exchange gave."""
        form = {name: values[0] for name, values in parse_qs(call.body.decode()).items()}
        if form.get("service") != self._host or not self._sign_in.gave(form.get("refresh_token", "")):
            raise Refusal(401, "UNAUTHORIZED", "authentication required")
        inner = urlencode({**form, "service": "stand-in", "refresh_token": REFRESH_TOKEN})
        return self._passed("POST", "/token", {"content-type": "application/x-www-form-urlencoded"}, inner.encode())

    def _passed(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answered:
        sent = {name: text for name, text in headers.items() if name not in _OF_A_HOP}
        found = self._client.request(method, target, headers=sent, content=body)
        kept = {name: text for name, text in found.headers.items() if name not in _OF_A_HOP}
        if "www-authenticate" in kept:
            asked = kept["www-authenticate"].replace(f"{self.inside.url}/token", f"https://{self._host}/oauth2/token")
            kept["www-authenticate"] = asked.replace('service="stand-in"', f'service="{self._host}"')
        return Answered(found.status_code, found.content, kept)
