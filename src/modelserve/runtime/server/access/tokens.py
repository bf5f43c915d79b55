"""Tokens of an identity provider (OpenID Connect): JWTs, checked against the keys that it publishes (JWKS).

Only asymmetric algorithms, a known issuer, our own audience, an expiry. What the caller may do stands in `scope`:
modelserve:predict, modelserve:metrics, modelserve:admin.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from modelserve.errors import ConfigError, MissingExtraError
from modelserve.runtime.server.access.caller import Caller
from modelserve.runtime.server.routes import Scope

_log = logging.getLogger(__name__)
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_PREFIX = "modelserve:"
_LEEWAY_S = 30
_REFRESH_S = 300.0
_RETRY_S = 10.0
_TIMEOUT_S = 10.0
_LOCAL = {("http", "127.0.0.1"), ("http", "localhost")}


class Tokens:
    """Recognises callers by their tokens.

    The provider's keys are fetched in a thread of their own, at the start and every few minutes, and sooner where a
    token names a key that is not known: no request ever waits for the provider.

    Args:
        jwks_url: Where the provider publishes its keys; https, unless it is on this machine.
    """

    def __init__(self, *, issuer: str, audience: str, jwks_url: str) -> None:
        if not (issuer and audience and jwks_url):
            raise ConfigError("Tokens need all three: oidc_issuer, oidc_audience and oidc_jwks_url.")
        parts = urlsplit(jwks_url)
        if parts.scheme != "https" and (parts.scheme, parts.hostname) not in _LOCAL:
            raise ConfigError(f"oidc_jwks_url must be https, got {jwks_url!r}: whoever can change it can make tokens.")
        try:
            import jwt
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                'Tokens need PyJWT with cryptography. Install them with: pip install "modelserve[oidc]"'
            ) from error
        self._jwt: Any = jwt
        self._issuer, self._audience = issuer, audience
        self._client: Any = jwt.PyJWKClient(jwks_url, cache_keys=False, timeout=_TIMEOUT_S)
        self._keys: dict[str, Any] = {}
        self._tried_at = time.monotonic()

    def fetch(self) -> None:
        """Get the provider's keys now. Blocks; where that fails, those known so far stay."""
        try:
            found = self._client.get_signing_keys(refresh=True)
            self._keys = {key.key_id: key.key for key in found}
        except self._jwt.PyJWTError as error:
            _log.error("The identity provider's keys could not be fetched: %s", error)

    def recognise(self, credential: str) -> Caller | None:
        """Who shows this token."""
        if credential.count(".") != 2:
            return None
        try:
            key = self._key(self._jwt.get_unverified_header(credential).get("kid"))
            if key is None:
                return None
            claims = self._jwt.decode(
                credential,
                key,
                algorithms=_ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (self._jwt.PyJWTError, ValueError, TypeError):
            return None
        return Caller(f"token:{claims['sub']}", _scopes(claims))

    def _key(self, key_id: Any) -> Any:
        found = self._keys.get(key_id) if isinstance(key_id, str) else None
        # Only the event loop asks, so that nobody else starts the same thread.
        age_s = time.monotonic() - self._tried_at
        if age_s > (_REFRESH_S if found is not None else _RETRY_S):
            self._tried_at = time.monotonic()
            threading.Thread(target=self.fetch, name="modelserve-jwks", daemon=True).start()
        return found


def _scopes(claims: dict[str, Any]) -> frozenset[Scope]:
    said = claims.get("scope", "")
    words = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
    known = {scope.value: scope for scope in Scope if scope is not Scope.OPEN}
    names = (str(word).removeprefix(_PREFIX) for word in words if str(word).startswith(_PREFIX))
    return frozenset(known[name] for name in names if name in known)
