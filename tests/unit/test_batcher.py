"""What runs together, and how the size that pays is found."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelserve import wire
from modelserve.runtime.batcher import Curve, Patience, Slicing, describe, groups, usual
from modelserve.runtime.channel import ALONE, Submission


def submission(rows: int, width: int = 4, flags: int = 0) -> tuple[Submission, bytes]:
    message = wire.encode_request({"x": np.zeros((rows, width), np.float32)})
    return Submission(0, 0, len(message.header), 0, 0, 0, flags, 0), message.header


class TestCurve:
    def test_joining_pays_up_to_where_twice_the_rows_take_twice_the_time(self) -> None:
        curve = Curve([10e-6, 11e-6, 12e-6, 14e-6, 28e-6])
        assert curve.join_rows() == 8

    def test_joining_never_pays_for_a_model_bound_by_memory(self) -> None:
        assert Curve([1.3e-3, 2.8e-3]).join_rows() == 1

    def test_one_busy_moment_does_not_hide_that_joining_pays(self) -> None:
        assert Curve([10e-6, 30e-6, 12e-6, 13e-6, 26e-6]).join_rows() == 8

    def test_one_interrupted_run_changes_little(self) -> None:
        curve = Curve([10e-6, 11e-6])
        curve.note(2, 1.0)
        assert curve.join_rows() == 2

    def test_an_unknown_curve_joins_nothing(self) -> None:
        assert Curve().join_rows() == 1

    def test_it_follows_what_runs_take_now(self) -> None:
        curve = Curve([10e-6, 11e-6])
        for _ in range(50):
            curve.note(2, 40e-6)
        assert curve.join_rows() == 1

    def test_it_tries_twice_as_many_now_and_then(self) -> None:
        curve = Curve([10e-6, 11e-6])
        assert {curve.join_rows() for _ in range(200)} == {2, 4}

    def test_measuring_stops_where_joining_stops_to_pay(self) -> None:
        ran = []
        curve = Curve()
        curve.measure(ran.append, budget_s=5.0)
        assert max(ran) <= 256
        assert len(curve.seconds) >= 1


class TestUsual:
    def test_it_follows_what_is_quicker_and_hardly_what_is_slower(self) -> None:
        assert usual(100.0, 60.0) == 90.0
        assert usual(100.0, 10_000.0) == 112.5
        assert usual(100.0, 101.0) == 101.0
        assert usual(100.0, 10_000.0, rise=1.01) == 101.0


class TestSlicing:
    @staticmethod
    def tried(slicing: Slicing, rows: int, sliced_ns: int, whole_ns: int, times: int) -> list[bool]:
        ways = []
        for _ in range(times):
            ways.append(slicing.pays(rows, promised_ns=5.0))
            slicing.note(rows, sliced_ns if ways[-1] else whole_ns, sliced=ways[-1])
        return ways

    def test_each_way_is_tried_twice_and_the_cheaper_one_kept(self) -> None:
        assert self.tried(Slicing(), 1000, 5_000, 9_000, times=7) == [False, True] * 2 + [True] * 3

    def test_a_model_that_turns_out_cheaper_whole_is_run_whole(self) -> None:
        assert self.tried(Slicing(), 1000, 9_500, 9_000, times=7) == [False, True] * 2 + [False] * 3

    def test_what_promises_nothing_is_never_tried(self) -> None:
        assert not any(self.tried(Slicing(), 1000, 1_000, 5_000, times=7))

    def test_each_size_is_tried_by_itself(self) -> None:
        slicing = Slicing()
        self.tried(slicing, 1000, 5_000, 9_000, times=4)
        assert slicing.pays(900, promised_ns=5.0)
        assert not slicing.pays(100_000, promised_ns=5.0)

    def test_a_curve_of_one_size_promises_nothing(self) -> None:
        assert Curve([1e-6]).best_row_ns == math.inf
        assert Curve([10e-6, 11e-6]).best_row_ns == 5500


class TestPatience:
    def test_who_finds_the_worker_at_rest_is_not_held_back(self) -> None:
        patience = Patience(budget_s=0.01)
        assert patience.until_ns(arrived_ns=50_000_000, rested_since_ns=10_000_000) == 50_000_000
        assert patience.until_ns(arrived_ns=50_000_000, rested_since_ns=49_000_000) == 60_000_000

    def test_no_more_is_waited_for_than_came_together_lately(self) -> None:
        patience = Patience(budget_s=0.01)
        assert patience.rows(join_rows=64) == 1
        patience.note(8)
        assert patience.rows(join_rows=64) == 8
        assert patience.rows(join_rows=4) == 4
        for _ in range(30):
            patience.note(1)
        assert patience.rows(join_rows=64) == 1

    def test_now_and_then_it_sees_whether_more_would_come(self) -> None:
        patience = Patience(budget_s=0.01)
        assert 64 in [patience.rows(join_rows=64) for _ in range(64)]


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from([4, 5]), st.booleans()), max_size=30), st.integers(1, 16))
def test_every_request_is_in_one_group_of_its_own_kind_and_none_above_the_size(
    requests: list[tuple[int, int, bool]], join_rows: int
) -> None:
    waiting = []
    for index, (rows, width, alone) in enumerate(requests):
        entry, header = submission(rows, width, ALONE if alone else 0)
        waiting.append(describe(entry._replace(ticket=index), header))
    found = list(groups(waiting, join_rows))
    assert sorted(one.submission.ticket for group in found for one in group) == list(range(len(requests)))
    for group in found:
        assert len({one.key for one in group}) == 1
        assert len(group) == 1 or sum(one.rows for one in group) <= join_rows
        assert len(group) == 1 or all(not one.submission.flags & ALONE for one in group)
        tickets = [one.submission.ticket for one in group]
        assert tickets == sorted(tickets)
