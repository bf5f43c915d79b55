"""Who may do what: nobody in particular, a user with a password, or whoever got a token for just that.

https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qs

from modelserve.standin.registry.contents import Refusal

USER, PASSWORD, REFRESH_TOKEN = "modelserve", "open sesame", "refresh me"  # of a registry of this machine
_SERVICE = "stand-in"


class Door(Enum):
    """How a registry asks who calls."""

    OPEN = "open"
    PASSWORD = "password"  # noqa: S105  # a word
    TOKEN = "token"  # noqa: S105  # a word


@dataclass(slots=True)
class Access:
    """A registry's door.

    Attributes:
        tokens: What was given out, each with the scopes that it opens.
        public: Repositories that anybody may get a token to pull from.
    """

    door: Door
    tokens: dict[str, set[str]] = field(default_factory=dict)
    public: set[str] = field(default_factory=set)

    def check(self, authorization: str, url: str, repository: str, action: str) -> None:
        """Let a request in, or say how to get in."""
        if self.door is Door.OPEN:
            return
        if self.door is Door.PASSWORD:
            if authorization != _basic():
                raise _unauthorized('Basic realm="stand-in"')
            return
        scopes = self.tokens.get(authorization.removeprefix("Bearer "), set())
        if f"{repository}:{action}" not in scopes:
            asked = f"repository:{repository}:{'pull' if action == 'pull' else 'pull,push'}"
            raise _unauthorized(f'Bearer realm="{url}/token",service="{_SERVICE}",scope="{asked}"')

    def token(self, authorization: str, query: str) -> str:
        """A token for the scopes that are asked for, by a password, by a refresh token, or for what is public."""
        asked = parse_qs(query)
        if asked.get("service") != [_SERVICE]:
            raise Refusal(400, "UNAUTHORIZED", "another service was asked for")
        is_known = authorization == _basic() or asked.get("refresh_token") == [REFRESH_TOKEN]
        granted = set()
        for scope in " ".join(asked.get("scope", [])).split():
            _, repository, actions = scope.split(":")
            for action in actions.split(","):
                if is_known or (action == "pull" and repository in self.public):
                    granted.add(f"{repository}:{action}")
        if authorization and not is_known:
            raise _unauthorized('Basic realm="token"')
        token = secrets.token_hex(16)
        self.tokens[token] = granted
        return token


def _basic() -> str:
    return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def _unauthorized(challenge: str) -> Refusal:
    return Refusal(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})
