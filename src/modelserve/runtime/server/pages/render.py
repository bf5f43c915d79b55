"""Templates and what stands in them. Everything that comes from outside is escaped by the template engine."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from modelserve.runtime.server.http.messages import Headers, Response
from modelserve.runtime.server.pages import sparkline

HTML = b"text/html; charset=utf-8"
_FOLDER = Path(__file__).parent
_STATIC = {"style.css": b"text/css; charset=utf-8", "live.js": b"text/javascript; charset=utf-8"}
# Nothing from elsewhere, nothing inline, in nobody's frame. The referrer stays: without it a browser names no origin.
_HEADERS: Headers = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
        b"frame-ancestors 'none'; base-uri 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


def page(template: str, *, status: int = 200, **content: Any) -> Response:
    """One page. Blocks for a millisecond or two."""
    text = _templates().get_template(template).render(**content)
    return Response(text.encode("utf-8", "replace"), HTML, status=status, headers=_HEADERS)


def static(name: str) -> Response:
    """A file that pages refer to."""
    content = (_FOLDER / name).read_bytes()
    return Response(content, _STATIC[name], headers=((b"cache-control", b"max-age=300"), _HEADERS[1]))


@lru_cache(maxsize=1)
def _templates() -> Any:
    # Imported when the first page is asked for: most servers never show one.
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters["mib"] = lambda size_bytes: f"{(size_bytes or 0) / (1 << 20):,.0f} MiB"
    made.globals["sparkline"] = sparkline
    return made
