"""Whatever comes over the network is read, or refused by an error of ours: never by another one, never by a crash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserve.testing import noise


@pytest.mark.parametrize("reader", noise.READERS)
@given(st.binary(max_size=200))
def test_noise_is_refused(reader: str, content: bytes) -> None:
    noise.refused_or_read(reader, content)


@pytest.mark.parametrize(("reader", "content"), noise.seeds())
def test_what_is_whole_is_read(reader: str, content: bytes) -> None:
    assert noise.refused_or_read(reader, content)


_WORDS = [b"-", b"1e999", b"null", b"[[[", b'"']


@st.composite
def spoilt(draw: st.DrawFn) -> tuple[str, bytes]:
    """A message in which a few bytes were changed, left out or put in."""
    reader, content = draw(st.sampled_from(noise.seeds()))
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        length = draw(st.integers(0, 4))
        changed[at : at + length] = draw(st.binary(max_size=4) | st.sampled_from(_WORDS))
    return reader, bytes(changed)


@given(spoilt())
def test_what_is_spoilt_is_read_or_refused(found: tuple[str, bytes]) -> None:
    noise.refused_or_read(*found)
