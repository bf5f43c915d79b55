"""A body whose media type tells how long its JSON part is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from modelserve.backend.sized import content_type, read_reply, request_content
from modelserve.errors import WireError
from modelserve.wire import encode_request


def test_outputs_are_spelt_out_so_that_no_server_answers_with_all_of_them() -> None:
    message = encode_request({"x": np.ones((1, 2), np.float32)})
    content, header_bytes = request_content(message, "y")
    header = json.loads(content[:header_bytes])
    assert header["outputs"] == [{"name": "y", "parameters": {"binary_data": True}}]
    assert content[header_bytes:] == np.ones((1, 2), np.float32).tobytes()


def test_a_reply_is_divided_where_its_type_says() -> None:
    reply = read_reply(content_type(4), b"JSONbytes")
    assert (reply.header, bytes(reply.body)) == (b"JSON", b"bytes")
    assert bytes(read_reply("application/json", b"{}").header) == b"{}"


@pytest.mark.parametrize("kind", ["a/b;json-header-size=5", "a/b;json-header-size=x", "a/b; json-header-size=-1"])
def test_a_reply_that_says_nonsense_of_itself_is_refused(kind: str) -> None:
    with pytest.raises(WireError):
        read_reply(kind, b"{}")
