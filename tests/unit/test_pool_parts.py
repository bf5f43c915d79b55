"""The pool's parts that need no process: memory, channel, autoscaling, processors."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelserve.errors import OverloadedError
from modelserve.runtime import cores, worker
from modelserve.runtime.autoscale import Autoscaler
from modelserve.runtime.bell import Bell
from modelserve.runtime.channel import DEPTH, RESERVED_BYTES, Alarm, Completion, Receiver, Sender, Submission
from modelserve.runtime.launch import Handle
from modelserve.runtime.loading import load_order
from modelserve.runtime.memory import Arena
from modelserve.runtime.settings import PoolSettings
from modelserve.testing import models
from modelserve.testing.pools import open_descriptors


@pytest.fixture
def arena() -> Arena:
    return Arena(reserved_bytes=RESERVED_BYTES, limit_bytes=64 << 20)


class TestArena:
    def test_blocks_do_not_overlap_each_other_or_the_channels(self, arena: Arena) -> None:
        taken = sorted(arena.take(size) for size in (1, 4096, 4097, 100_000, 1))
        end = RESERVED_BYTES
        for offset, kind in taken:
            assert offset >= end
            end = offset + (1 << kind)

    def test_a_block_that_was_given_back_is_taken_again(self, arena: Arena) -> None:
        block = arena.take(5000)
        arena.give_back(*block)
        assert arena.take(5000) == block

    def test_more_than_the_limit_is_refused_and_nothing_is_lost(self, arena: Arena) -> None:
        block = arena.take(40 << 20)
        with pytest.raises(OverloadedError, match="under way"):
            arena.take(1 << 20)
        arena.give_back(*block)
        assert arena.used_bytes == 0
        arena.take(40 << 20)

    def test_large_free_blocks_give_their_pages_back(self) -> None:
        arena = Arena(reserved_bytes=RESERVED_BYTES, limit_bytes=256 << 20)

        def used_pages() -> int:
            return Path(f"/proc/self/fd/{arena.descriptor}").stat().st_blocks * 512

        blocks = [arena.take(8 << 20) for _ in range(12)]
        for offset, kind in blocks:
            arena.view[offset : offset + (1 << kind)] = bytes(1 << kind)
        full = used_pages()
        for block in blocks:
            arena.give_back(*block)
        assert full >= 96 << 20
        assert used_pages() <= 65 << 20
        arena.close()


def channel(slot: int = 3) -> tuple[Sender, Receiver, Alarm, Bell]:
    view = memoryview(mmap.mmap(-1, RESERVED_BYTES))
    asked, answered = Bell.create(), Bell.create()
    return Sender(view, slot, asked), Receiver(view, slot, asked, answered), Alarm(view), answered


class TestChannel:
    def test_requests_arrive_in_order_and_answers_come_back(self) -> None:
        sender, receiver, _, _ = channel()
        entries = [Submission(ticket, 1, 2, 3, 4, 5, 6, 7) for ticket in range(5)]
        for entry in entries:
            sender.put(entry)
        assert sender.untouched()
        assert receiver.take() == entries
        assert not sender.untouched()
        receiver.complete((3, 0, 10, 20))
        assert not sender.has_answers()
        receiver.announce(1)
        assert [found[:4] for found in sender.collect()] == [(3, 0, 10, 20)]
        assert sender.runs_and_rows == (1, 1)

    def test_an_answer_tells_of_the_run_that_it_comes_from(self) -> None:
        sender, receiver, _, _ = channel()
        for ticket in (1, 2, 3):
            sender.put((ticket, 0, 0, 0, 0, 0, 0, 0))
        receiver.take()
        before_ns = time.monotonic_ns()
        receiver.begin([1, 2], 9, before_ns)  # one of them joint
        receiver.complete((1, 0, 0, 0))
        receiver.complete((2, 0, 0, 0))
        receiver.begin([3], 1, before_ns + 7)
        receiver.complete((3, 0, 0, 0))
        receiver.announce(3)
        one, two, three = (Completion._make(found) for found in sender.collect())
        assert (one.began_ns, one.joined) == (two.began_ns, two.joined) == (before_ns, 9)
        assert (three.began_ns, three.joined) == (before_ns + 7, 1)
        assert before_ns <= one.computed_ns == two.computed_ns <= three.computed_ns <= time.monotonic_ns()

    def test_the_rings_go_round(self) -> None:
        sender, receiver, _, _ = channel()
        for turn in range(5):
            for ticket in range(DEPTH):
                sender.put((turn * DEPTH + ticket, 0, 0, 0, 0, 0, 0, 0))
            for entry in receiver.take():
                receiver.complete((entry.ticket, 0, 0, 0))
            receiver.announce(DEPTH)
            assert [ticket for ticket, *_ in sender.collect()] == list(range(turn * DEPTH, (turn + 1) * DEPTH))

    def test_only_a_sleeper_is_rung(self) -> None:
        sender, receiver, _, _ = channel()
        sender.put((1, 0, 0, 0, 0, 0, 0, 0))
        sender.wake()
        assert not receiver.about_to_sleep()  # something waits, so it does not sleep
        receiver.take()
        assert receiver.about_to_sleep()
        sender.put((2, 0, 0, 0, 0, 0, 0, 0))
        sender.wake()
        assert receiver.bell.wait_descriptor >= 0
        receiver.awake()
        assert [entry.ticket for entry in receiver.take()] == [2]

    def test_the_alarm_rings_once(self) -> None:
        import os

        _, receiver, alarm, answered = channel()
        receiver.announce(0)
        with pytest.raises(BlockingIOError):
            os.eventfd_read(answered.wait_descriptor)
        alarm.set()
        receiver.announce(0)
        receiver.announce(0)
        assert os.eventfd_read(answered.wait_descriptor) == 1

    def test_what_a_worker_runs_is_known_until_it_has_answered(self) -> None:
        sender, receiver, _, _ = channel()
        receiver.begin([7, 8], 2, 123)
        assert sender.running() == ([7, 8], 123)
        receiver.announce(2)
        assert sender.running()[0] == []


class TestHandle:
    def test_a_process_that_comes_after_it_was_given_up_is_ended_and_costs_no_descriptor(self) -> None:
        handle = Handle()
        handle.kill()  # as a worker that is let go while the zygote still forks it
        handle.forget()
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        before = open_descriptors()
        handle.born(process.pid)
        assert open_descriptors() == before
        assert process.wait(timeout=10) == -signal.SIGKILL


class TestAutoscaler:
    def test_it_grows_at_once_and_at_most_doubles(self) -> None:
        scaler = Autoscaler(1, 8, 4)
        assert scaler.decide(1, 64, 0.0) == 2
        assert scaler.decide(2, 64, 0.1) == 4
        assert scaler.decide(4, 64, 0.2) == 8
        assert scaler.decide(8, 640, 0.3) == 8

    def test_it_shrinks_only_after_a_while_and_one_by_one(self) -> None:
        scaler = Autoscaler(1, 8, 4)
        assert [scaler.decide(4, 0, now) for now in (0.0, 1.0, 4.9)] == [4, 4, 4]
        assert scaler.decide(4, 0, 5.1) == 3
        assert scaler.decide(3, 0, 5.2) == 3

    def test_it_rests_only_where_it_may(self) -> None:
        resting = Autoscaler(0, 2, 4)
        assert resting.decide(1, 0, 0.0) == 1
        assert resting.decide(1, 0, 16.0) == 0
        assert resting.decide(0, 1, 16.1) == 1
        awake = Autoscaler(1, 2, 4)
        assert awake.decide(1, 0, 0.0) == 1
        assert awake.decide(1, 0, 100.0) == 1


class TestCores:
    def test_a_control_groups_quota_counts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        quota = tmp_path / "cpu.max"
        monkeypatch.setattr(cores, "_V2", quota)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
        for text, wanted in (("max 100000", 16), ("400000 100000", 4), ("50000 100000", 1), ("250000 100000", 2)):
            quota.write_text(text)
            assert cores.usable_cores() == wanted


def test_workers_that_load_a_function_at_once_each_read_the_whole_of_it() -> None:
    """All of them hold the same open file, and so one place in it."""
    order, descriptors = load_order(models.live("It is a test."), PoolSettings())
    try:
        with ThreadPoolExecutor(8) as threads:
            loaded = list(threads.map(lambda _: worker.load(order, descriptors), range(1600)))
    finally:
        os.close(descriptors[0])
    assert len(loaded) == 1600
