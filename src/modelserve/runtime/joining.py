"""One message for many, and the many answers in one: what changes is the size of the first axis.

header of a request, n times ──► header of a joint request
joint answer                 ──► n answers, with the rows of each
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from modelserve import wire
from modelserve.errors import WireError
from modelserve.wire import Layout, Reply

_KNOWN = 4096


@lru_cache(maxsize=_KNOWN)
def joinable(header: bytes) -> Layout | None:
    """The layout of a request that can be joined with others of the same header; None where it cannot be.

    It has one tensor, whose rows follow each other in the body and are all of one size.
    """
    try:
        layout = wire.request_layout(header)
    except WireError:
        return None  # whoever runs it says what is wrong
    field, *others = layout.fields
    is_plain = not others and not layout.is_alone and field.data is None and field.datatype != "BYTES"
    return layout if is_plain and field.size_bytes and field.shape else None


@lru_cache(maxsize=_KNOWN)
def joint_header(header: bytes, count: int) -> bytes:
    """The header of `count` such requests in one."""
    return header if count == 1 else _scaled(header, "inputs", lambda rows: rows * count)


def divided(reply: Reply, count: int) -> list[Reply]:
    """The answers that lie in one, each with memory of its own.

    Raises:
        WireError: its rows cannot be told apart.
    """
    header, sizes = _divided_header(reply.header, count)
    body = reply.body
    if len(sizes) == 1:
        each = sizes[0].each
        return [Reply(header, memoryview(bytearray(body[at : at + each]))) for at in range(0, count * each, each)]
    return [Reply(header, _gathered(body, sizes, place)) for place in range(count)]


class _Size(NamedTuple):
    """Where an output begins, and what of it is each share's."""

    at: int
    each: int


def _gathered(body: memoryview, sizes: tuple[_Size, ...], place: int) -> memoryview:
    """What one share gets of every output, in one piece."""
    parts = [body[at + place * each : at + (place + 1) * each] for at, each in sizes]
    return memoryview(bytearray(b"").join(parts))


@lru_cache(maxsize=_KNOWN)
def _divided_header(header: bytes, count: int) -> tuple[bytes, tuple[_Size, ...]]:
    layout = wire.reply_layout(header)
    for field in layout.fields:
        rows = field.shape[0] if field.shape else 0
        if field.data is not None or field.datatype == "BYTES" or not rows or rows % count:
            raise WireError(f"The output {field.name!r} of shape {list(field.shape)} is not one of {count} requests.")
    sizes = tuple(_Size(field.offset, field.size_bytes // count) for field in layout.fields)
    return header if count == 1 else _scaled(header, "outputs", lambda rows: rows // count), sizes


def _scaled(header: bytes, kind: str, scale: Callable[[int], int]) -> bytes:
    """The header with another number of rows, and of bytes, in each tensor."""
    content: dict[str, Any] = json.loads(header)
    for tensor in content[kind]:
        tensor["shape"][0] = scale(tensor["shape"][0])
        tensor["parameters"]["binary_data_size"] = scale(tensor["parameters"]["binary_data_size"])
    return json.dumps(content, separators=(",", ":")).encode()
