"""Whether this caller may do this here.

contract route of the cloud that we run in ──► its own door has asked already
nobody is to be asked (loopback without keys) ──► anybody
otherwise ──► a credential ─► an authority recognises it ─► scope ─► model ─► rate
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from modelserve.runtime.server.access.caller import ANYBODY, Authority, Caller
from modelserve.runtime.server.access.rate import Rates
from modelserve.runtime.server.http.messages import NOTHING, Request, Response
from modelserve.runtime.server.problems import problem
from modelserve.runtime.server.routes import Route, Scope

_CHALLENGE = ((b"www-authenticate", b"Bearer"),)
# A browser asks its user by itself, and sends the key as the password.
_PAGE_CHALLENGE = ((b"www-authenticate", b'Basic realm="modelserve: a key as password", charset="UTF-8"'),)
_BEARER, _BASIC = b"bearer ", b"basic "
_LONGEST_CREDENTIAL = 8192
_MOST_HOSTS = 64


class Policy:
    """Decides about requests, by their heads alone.

    Args:
        authorities: What recognises callers. None, and `closed` False: everybody may do everything.
        closed: Whether callers have to be recognised even where there is nothing that could recognise them.
        local: Whether only this machine can reach the server, so that any other name in `Host` is a web page's trick.
    """

    def __init__(self, authorities: Sequence[Authority] = (), *, closed: bool = False, local: bool = False) -> None:
        self._local = local and not closed and not authorities
        self._authorities = tuple(authorities)
        self._closed = closed or bool(authorities)
        self._rates = Rates()
        #: Names in `Host` that were found to be right, so that the everyday request is only looked up.
        self._own_hosts: set[bytes] = set()

    def check(self, request: Request, route: Route) -> Response | None:
        """Note who asks; a response refuses."""
        foreign = self._from_a_web_page(request)
        if foreign is not None:
            return foreign
        if not self._closed or route.contract:
            request.caller = ANYBODY
            return None
        if route.scope is Scope.OPEN:
            return None
        caller = self._recognised(request)
        if caller is None:
            return problem(
                401,
                "A key is needed, as 'Authorization: Bearer KEY'. One that is known here was not sent.",
                code="access_denied",
                headers=_PAGE_CHALLENGE if route.page else _CHALLENGE,
            )
        request.caller = caller
        if not caller.may(route.scope):
            return problem(
                403, f"This key may not do that: the scope {route.scope.value!r} is needed.", code="access_denied"
            )
        if "name" in route.parameters and not caller.knows(request.arguments[0]):
            return problem(403, f"This key may not use model {request.arguments[0]!r}.", code="access_denied")
        return self._in_rate(caller)

    def _from_a_web_page(self, request: Request) -> Response | None:
        """Pages of other sites that a user of this machine looks at may not ask in their name."""
        host = request.headers.get(b"host", NOTHING)
        if host in self._own_hosts and b"origin" not in request.headers:
            return None
        origin = request.headers.get(b"origin")
        if origin is not None and origin.partition(b"://")[2] != host:
            return problem(403, "Web pages of other sites may not ask here.", code="access_denied")
        if self._local and not _is_local(host):
            return problem(
                403,
                "This server is for its own machine, under its own name. Ask it as 127.0.0.1 or localhost; behind a "
                "proxy start it with --anonymous, or with keys.",
                code="access_denied",
            )
        if len(self._own_hosts) < _MOST_HOSTS:
            self._own_hosts.add(host)
        return None

    def _recognised(self, request: Request) -> Caller | None:
        credential = _credential(request)
        if not credential or len(credential) > _LONGEST_CREDENTIAL:
            return None
        text = credential.decode("latin-1")
        for authority in self._authorities:
            caller = authority.recognise(text)
            if caller is not None:
                return caller
        return None

    def _in_rate(self, caller: Caller) -> Response | None:
        wait_s = 0.0 if caller.rate_per_s is None else self._rates.wait_s(caller.name, caller.rate_per_s)
        if not wait_s:
            return None
        message = f"This key may ask {caller.rate_per_s:g} times a second, and has. Wait before asking again."
        return problem(429, message, code="overloaded", retry_s=wait_s)


def _is_local(host: bytes) -> bool:
    name = host.rpartition(b":")[0] if host.rpartition(b":")[2].isdigit() else host
    return name in {b"localhost", b"[::1]", b""} or name.startswith(b"127.")


def _credential(request: Request) -> bytes:
    shown = request.headers.get(b"authorization", NOTHING)
    if shown[: len(_BEARER)].lower() == _BEARER:
        return shown[len(_BEARER) :].strip()
    if shown[: len(_BASIC)].lower() == _BASIC:
        return _password(shown[len(_BASIC) :].strip())
    return request.headers.get(b"x-api-key", NOTHING).strip()


def _password(shown: bytes) -> bytes:
    try:
        return base64.b64decode(shown, validate=True).partition(b":")[2]
    except binascii.Error:
        return NOTHING
