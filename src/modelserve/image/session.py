"""Requests to one registry: logged in by its own way, and sent again where that is safe.

send ──► 401 WWW-Authenticate: Basic                    ──► user and password
                               Bearer realm, service    ──► the realm gives a token for the scope ──► sent again

https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, TypeAlias

import httpx

from modelserve.errors import AccessDeniedError, RegistryError
from modelserve.image.credentials import Bearer, Credentials, Login, Password, RefreshToken, Through
from modelserve.image.reference import Reference

#: A body that can be sent more than once.
Body: TypeAlias = Callable[[], Iterable[bytes]]

_LONGEST_WAIT_S = 60.0
_PASSING = {408, 429, 500, 502, 503, 504}
_UNAUTHORIZED = 401
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)


class Session:
    """One registry, for as long as `with` lasts.

    Attributes:
        waits_s: Pauses between attempts; their number is that of further attempts.
    """

    waits_s: ClassVar[tuple[float, ...]] = (0.5, 1.0, 2.0, 4.0)

    def __init__(self, reference: Reference, credentials: Credentials) -> None:
        self.registry = reference.registry
        self.url = reference.url
        self._credentials = credentials
        way = credentials.way if isinstance(credentials, Through) else {}
        self._client = httpx.Client(timeout=_TIMEOUT, follow_redirects=True, **way)
        self._logins: dict[str, str] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def send(
        self,
        method: str,
        url: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Body = b"",
        expected: Iterable[int] = (),
    ) -> httpx.Response:
        """Ask until there is an answer that means something.

        Args:
            url: A path, or what a registry gave as a location.
            scope: What the login must allow, such as "repository:team/app:pull"; several stand with spaces between.
            expected: The statuses that are no failure.

        Raises:
            AccessDeniedError: the registry does not let us.
            RegistryError: it cannot be reached, or answered otherwise than expected.
        """
        for wait_s in (*self.waits_s, None):
            try:
                answer = self.once(method, url, scope=scope, headers=headers, body=body)
            except httpx.TransportError as error:
                if wait_s is None:
                    raise self._unreachable(method, url, error) from error
            else:
                if answer.status_code not in _PASSING or wait_s is None:
                    return self._checked(answer, expected)
                wait_s = max(wait_s, retry_after_s(answer))
            time.sleep(wait_s)
        raise AssertionError("the last round answers or raises")

    def once(
        self, method: str, url: str, *, scope: str, headers: Mapping[str, str] | None = None, body: bytes | Body = b""
    ) -> httpx.Response:
        """Ask once, logging in where that is asked for; whatever the answer says.

        Raises:
            httpx.TransportError: there was none.
        """
        answer = self._sent(method, url, scope, headers, body)
        if answer.status_code == _UNAUTHORIZED:
            self._log_in(answer, scope)
            answer = self._sent(method, url, scope, headers, body)
        return answer

    @contextmanager
    def stream(self, url: str, *, scope: str) -> Iterator[httpx.Response]:
        """What a registry has at `url`, piece by piece; whatever its status says."""
        request = self._client.build_request("GET", self._absolute(url), headers=self._login(url, scope))
        answer = self._client.send(request, stream=True)
        if answer.status_code == _UNAUTHORIZED:
            answer.read()
            self._log_in(answer, scope)
            request = self._client.build_request("GET", self._absolute(url), headers=self._login(url, scope))
            answer = self._client.send(request, stream=True)
        try:
            yield answer
        finally:
            answer.close()

    def _sent(
        self, method: str, url: str, scope: str, headers: Mapping[str, str] | None, body: bytes | Body
    ) -> httpx.Response:
        content = body() if callable(body) else body
        return self._client.request(
            method, self._absolute(url), content=content, headers={**(headers or {}), **self._login(url, scope)}
        )

    def _absolute(self, url: str) -> str:
        return str(httpx.URL(self.url).join(url))

    def _login(self, url: str, scope: str) -> dict[str, str]:
        # A registry may point elsewhere (to its storage); only the registry itself learns who we are.
        is_ours = httpx.URL(self._absolute(url)).host == httpx.URL(self.url).host
        known = self._logins.get(scope) if is_ours else None
        return {"authorization": known} if known else {}

    def _log_in(self, answer: httpx.Response, scope: str) -> None:
        challenge = answer.headers.get("www-authenticate", "")
        scheme, _, rest = challenge.partition(" ")
        login = self._credentials(self.registry)
        if scheme.lower() == "bearer":
            self._logins[scope] = f"Bearer {self._token(dict(_PARAMETER.findall(rest)), scope, login)}"
        elif scheme.lower() == "basic" and isinstance(login, Password):
            self._logins[scope] = _basic(login)
        else:
            raise self._denied(f"it asks for {scheme or 'nothing that it names'}, and there is no such login")

    def _token(self, challenge: Mapping[str, str], scope: str, login: Login | None) -> str:
        if isinstance(login, Bearer):
            return login.token
        realm, service = challenge.get("realm", ""), challenge.get("service", "")
        if not realm.startswith(("https://", self.url)):
            raise self._denied(f"it sends us to {realm!r} for a token, which is no safe address")
        asked = {"service": service, "scope": scope}
        if isinstance(login, RefreshToken):
            form = {**asked, "grant_type": "refresh_token", "client_id": "modelserve", "refresh_token": login.token}
            answer = self._client.post(realm, data=form)
        else:
            headers = {"authorization": _basic(login)} if isinstance(login, Password) else {}
            scopes = [("scope", one) for one in scope.split(" ")]
            answer = self._client.get(realm, params=[("service", service), *scopes], headers=headers)
        content = _json(answer)
        token = content.get("token") or content.get("access_token") if isinstance(content, dict) else None
        if not answer.is_success or not token:
            raise self._denied(f"its token service answered {answer.status_code}")
        return str(token)

    def _checked(self, answer: httpx.Response, expected: Iterable[int]) -> httpx.Response:
        if answer.status_code in set(expected):
            return answer
        raise self.refused(answer)

    def refused(self, answer: httpx.Response) -> AccessDeniedError | RegistryError:
        """The error that an answer stands for."""
        said = _said(answer)
        if answer.status_code in {_UNAUTHORIZED, 403}:
            return self._denied(said)
        return RegistryError(
            f"Registry {self.registry!r} answered {answer.request.method} {answer.request.url.path} with "
            f"{answer.status_code}: {said}."
        )

    def _denied(self, why: str) -> AccessDeniedError:
        return AccessDeniedError(
            f"Registry {self.registry!r} does not let us: {why}. Log in to it, or ask for the permission to pull and "
            "push there."
        )

    def _unreachable(self, method: str, url: str, error: Exception) -> RegistryError:
        return RegistryError(
            f"{method} {self._absolute(url)}: no answer after {len(self.waits_s) + 1} attempts "
            f"({type(error).__name__}: {error}). Is the registry's name right, and can it be reached from here?"
        )


def is_passing(answer: httpx.Response) -> bool:
    """Whether the same request may be answered otherwise later."""
    return answer.status_code in _PASSING


def retry_after_s(answer: httpx.Response) -> float:
    """How long the registry asks to wait, within reason."""
    text = answer.headers.get("retry-after", "")
    return min(float(text), _LONGEST_WAIT_S) if text.isdecimal() else 0.0


def _basic(login: Password) -> str:
    return "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()


def _said(answer: httpx.Response) -> str:
    content = _json(answer)
    errors = content.get("errors") if isinstance(content, dict) else None
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        return ": ".join(filter(None, (str(errors[0].get("code", "")), str(errors[0].get("message", "")))))
    return answer.reason_phrase or "no reason given"


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None
