"""login.microsoftonline.com: tokens for a service principal, each good for one audience."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Collection
from urllib.parse import parse_qs

from modelserve.standin.loopback import Answered
from modelserve_azureml.rehearsal.calls import Call, Refusal, said

HOST = "login.microsoftonline.com"
TENANT = "00000000-0000-0000-0000-00000000d1c7"
_LIFE_S = 3600


class SignIn:
    """Gives tokens, and knows which are good for what.

    Attributes:
        client_id, client_secret: Of the only principal there is.
    """

    def __init__(self) -> None:
        self.client_id = "00000000-0000-0000-0000-000000000c1d"
        self.client_secret = secrets.token_urlsafe(16)
        self._lock = threading.Lock()
        self._audiences: dict[str, str] = {}
        self._refreshing: set[str] = set()

    def answer(self, call: Call) -> Answered:
        base = f"https://{HOST}/{TENANT}"
        if call.path.endswith("/.well-known/openid-configuration"):
            return said(
                {
                    "issuer": f"{base}/v2.0",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                }
            )
        if call.path == "/common/discovery/instance":
            aliases = {"preferred_network": HOST, "preferred_cache": "login.windows.net", "aliases": [HOST]}
            found = f"{base}/v2.0/.well-known/openid-configuration"
            return said({"tenant_discovery_endpoint": found, "api-version": "1.1", "metadata": [aliases]})
        if call.method == "POST" and call.path.endswith("/oauth2/v2.0/token"):
            return self._token(call)
        raise Refusal(404, "NotFound", call.path)

    def exchanged(self, call: Call) -> Answered:
        """A container registry's token for one of ours, to be exchanged for one of each repository."""
        form = {name: values[0] for name, values in parse_qs(call.body.decode()).items()}
        if call.path != "/oauth2/exchange" or form.get("service") != call.host:
            raise Refusal(404, "NotFound", call.path)
        if form.get("grant_type") != "access_token" or not self.knows(form.get("access_token", "")):
            raise Refusal(401, "UNAUTHORIZED", "authentication required")
        token = _unsigned({"aud": call.host, "jti": secrets.token_hex(8)})
        with self._lock:
            self._refreshing.add(token)
        return said({"refresh_token": token})

    def gave(self, token: str) -> bool:
        """Whether a container registry's token is one of these."""
        with self._lock:
            return token in self._refreshing

    def check(self, call: Call, audiences: Collection[str]) -> None:
        """Refuse a call whose token is none of ours, or was made for something else."""
        with self._lock:
            made_for = self._audiences.get(call.bearer)
        if made_for is None:
            raise Refusal(401, "AuthenticationFailed", "Authentication failed.")
        if made_for.rstrip("/") not in audiences:
            raise Refusal(401, "InvalidAuthenticationTokenAudience", f"The access token is for {made_for}.")

    def knows(self, token: str) -> bool:
        """Whether it is a token of ours, whatever for."""
        with self._lock:
            return token in self._audiences

    def _token(self, call: Call) -> Answered:
        form = {name: values[0] for name, values in parse_qs(call.body.decode()).items()}
        known = (self.client_id, self.client_secret)
        if (form.get("client_id"), form.get("client_secret")) != known or TENANT not in call.path:
            text = "AADSTS7000215: Invalid client secret provided."
            return said({"error": "invalid_client", "error_description": text, "error_codes": [7000215]}, 401)
        audience = form.get("scope", "").split(" ")[0].removesuffix("/.default")
        now = int(time.time())
        token = _unsigned(
            {"aud": audience, "tid": TENANT, "iat": now, "exp": now + _LIFE_S, "jti": secrets.token_hex(8)}
        )
        with self._lock:
            self._audiences[token] = audience
        return said({"token_type": "Bearer", "expires_in": _LIFE_S, "ext_expires_in": _LIFE_S, "access_token": token})


def _unsigned(claims: dict[str, object]) -> str:
    """Shaped as a token, since clients look into it; nobody but this stand-in has to believe it."""
    parts = (json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims))
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "rehearsal"])
