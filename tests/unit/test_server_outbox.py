"""Answers of one turn of the loop leave together at its end, in order; what must leave now does."""

import asyncio
from typing import Any

from modelserve.runtime.server.http.outbox import Outbox


class Recorder:
    """A transport that notes what is written, and by whom."""

    def __init__(self, name: str, written: list[tuple[str, bytes]]) -> None:
        self._name = name
        self._written = written
        self.closing = False

    def is_closing(self) -> bool:
        return self.closing

    def write(self, content: bytes) -> None:
        self._written.append((self._name, content))


def in_a_loop(steps: Any) -> list[tuple[str, bytes]]:
    written: list[tuple[str, bytes]] = []
    first, second, outbox = Recorder("first", written), Recorder("second", written), Outbox()

    async def run() -> None:
        await steps(outbox, first, second, written)

    asyncio.run(run())
    return written


def test_answers_wait_for_the_end_of_the_turn_and_keep_their_order() -> None:
    async def steps(outbox: Outbox, first: Any, second: Any, written: list[Any]) -> None:
        outbox.put(first, b"1")
        outbox.put(second, b"2")
        outbox.put(first, b"3")
        assert written == []
        await asyncio.sleep(0)
        assert [content for _, content in written] == [b"1", b"2", b"3"]
        outbox.put(second, b"4")
        await asyncio.sleep(0)

    assert in_a_loop(steps) == [("first", b"1"), ("second", b"2"), ("first", b"3"), ("second", b"4")]


def test_what_must_leave_now_takes_along_what_waited_and_nothing_is_sent_twice() -> None:
    async def steps(outbox: Outbox, first: Any, second: Any, written: list[Any]) -> None:
        outbox.put(first, b"1")
        outbox.send()
        assert written == [("first", b"1")]
        await asyncio.sleep(0)

    assert in_a_loop(steps) == [("first", b"1")]


def test_nothing_is_written_to_a_connection_that_is_gone() -> None:
    async def steps(outbox: Outbox, first: Any, second: Any, written: list[Any]) -> None:
        outbox.put(first, b"1")
        outbox.put(second, b"2")
        first.closing = True
        await asyncio.sleep(0)

    assert in_a_loop(steps) == [("second", b"2")]
