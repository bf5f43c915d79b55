"""Which path leads to which handler, and what a caller must be allowed to do there."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias
from urllib.parse import unquote

from modelserve.runtime.server.http.messages import Request, Response
from modelserve.runtime.server.problems import problem

Handler: TypeAlias = Callable[[Request], Response | Coroutine[Any, Any, Response]]

_CACHED = 4096
_PARAMETER = re.compile(r"\{(\w+)\}")
_SEGMENT = r"([^/]+)"


class Scope(Enum):
    """What a caller must be allowed to do."""

    OPEN = "open"
    PREDICT = "predict"
    METRICS = "metrics"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Route:
    """One path.

    Attributes:
        pattern: Such as "/v2/models/{name}/infer"; what stands in braces is any one segment.
        summary: One line for the description of the interface.
        streams: Whether the body may be read while it comes.
        always: Whether it answers before the server is ready, and while it ends.
        page: Whether people come here with a browser, which asks them for a key by itself.
        contract: Whether it belongs to the container contract of a cloud, whose own door guards it.
    """

    method: str
    pattern: str
    handler: Handler
    scope: Scope
    summary: str
    streams: bool = False
    always: bool = False
    page: bool = False
    contract: bool = False

    @property
    def parameters(self) -> list[str]:
        return _PARAMETER.findall(self.pattern)


class Routes:
    """All paths of a server."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = list(routes)
        # Paths that are spelt out go before those with a name in them: /v2/models/stats is no model "stats".
        ordered = sorted(routes, key=lambda route: len(route.parameters) > 0)
        self._compiled = [(_compiled(route.pattern), route) for route in ordered]
        self._known: dict[tuple[bytes, bytes], tuple[Route, tuple[str, ...]]] = {}

    def find(self, request: Request) -> Response | None:
        """Note on the request where it leads; a response says that it leads nowhere."""
        known = self._known.get((request.method, request.target))
        if known is None:
            found = self._search(request)
            if isinstance(found, Response):
                return found
            if len(self._known) >= _CACHED:
                self._known.clear()
            known = self._known[request.method, request.target] = found
        request.route, request.arguments = known
        return None

    def _search(self, request: Request) -> tuple[Route, tuple[str, ...]] | Response:
        path = _path(request.target)
        if path is None:
            return problem(400, "The request's target is not a path in ASCII. Send one such as /v2.", code="target")
        method = request.method.decode("latin-1")
        wanted = "GET" if method == "HEAD" else method
        allowed: list[str] = []
        for pattern, route in self._compiled:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if route.method == wanted:
                return route, tuple(unquote(part) for part in match.groups())
            allowed.append(route.method)
        if not allowed:
            return problem(
                404, f"There is no {path[:200]!r} here. /openapi.json lists what there is.", code="not_found"
            )
        allow = ", ".join(sorted({*allowed, *(["HEAD"] if "GET" in allowed else [])}))
        return problem(
            405,
            f"{path[:200]!r} takes {allow}, not {method}.",
            code="method_not_allowed",
            headers=((b"allow", allow.encode()),),
        )


def _compiled(pattern: str) -> re.Pattern[str]:
    literals = _PARAMETER.split(pattern)[::2]
    return re.compile(_SEGMENT.join(map(re.escape, literals)))


def _path(target: bytes) -> str | None:
    """The path of a request's target, without its query."""
    try:
        text = target.decode("ascii")
    except UnicodeDecodeError:
        return None
    path = text.partition("?")[0]
    # Some clients name the whole address, as to a proxy.
    if path.startswith(("http://", "https://")):
        path = "/" + path.split("/", 3)[3] if path.count("/") > 2 else "/"
    if not path.startswith("/"):
        return None
    return path.rstrip("/") or "/"
