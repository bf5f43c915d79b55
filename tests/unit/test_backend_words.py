"""What is asked of a place is checked once, and its errors become ours at one seam."""

import math

import pytest

from modelserve.backend import Scale, raising_ours, translated
from modelserve.errors import BackendError, DeploymentNotFoundError, InvalidScaleError, OverloadedError


class TestScale:
    def test_a_fixed_size_is_a_minimum_that_is_the_maximum(self) -> None:
        assert Scale.fixed(3) == Scale(3, 3)
        assert Scale.fixed(3).is_fixed
        assert not Scale(0, 3).is_fixed

    def test_the_target_that_is_set_is_the_target(self) -> None:
        assert Scale(1, 4, target_cpu=0.5).targets == {"target_cpu": 0.5}
        assert Scale(1, 4).targets == {}

    @pytest.mark.parametrize(
        ("minimum", "maximum"), [(-1, 1), (2, 1), (-1, 0), (1.0, 2), (True, 2), ("1", 2), (None, 1)]
    )
    def test_counts_that_make_no_sense_are_refused(self, minimum: object, maximum: object) -> None:
        with pytest.raises(InvalidScaleError, match="Scale needs"):
            Scale(minimum, maximum)

    @pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "4", True])
    @pytest.mark.parametrize("name", ["target_inflight", "target_cpu", "target_requests_per_minute"])
    def test_targets_that_make_no_sense_are_refused_by_name(self, name: str, value: object) -> None:
        with pytest.raises(InvalidScaleError, match=name):
            Scale(1, 2, **{name: value})

    def test_a_share_of_a_processor_is_at_most_one(self) -> None:
        assert Scale(1, 2, target_cpu=1).targets == {"target_cpu": 1}
        with pytest.raises(InvalidScaleError, match="at most 1"):
            Scale(1, 2, target_cpu=1.01)

    def test_two_targets_are_refused_by_name(self) -> None:
        with pytest.raises(InvalidScaleError, match="one target, got target_inflight, target_cpu"):
            Scale(1, 2, target_inflight=1, target_cpu=0.5)


class VendorError(Exception):
    pass


class MissingError(VendorError):
    pass


class FarAwayError(MissingError):
    pass


TABLE = {
    VendorError: BackendError,
    MissingError: DeploymentNotFoundError,
    OSError: lambda error: OverloadedError if error.errno == 11 else BackendError,
}


class TestTranslation:
    @pytest.mark.parametrize("table", [TABLE, dict(reversed(TABLE.items()))])
    def test_the_nearest_class_wins_whatever_the_order(self, table: dict) -> None:
        assert translated(table, FarAwayError()) is DeploymentNotFoundError
        assert translated(table, VendorError()) is BackendError

    def test_a_function_looks_at_the_error_itself(self) -> None:
        assert translated(TABLE, OSError(11, "again")) is OverloadedError
        assert translated(TABLE, OSError(5, "broken")) is BackendError

    def test_ours_says_what_was_done_and_keeps_the_cause(self) -> None:
        vendors = FarAwayError("404")
        with (
            pytest.raises(DeploymentNotFoundError, match="Deleting 'a' failed: 404") as caught,
            raising_ours(TABLE, "Deleting 'a'"),
        ):
            raise vendors
        assert caught.value.__cause__ is vendors

    def test_what_the_table_does_not_know_stays_as_it_is(self) -> None:
        assert translated(TABLE, KeyError()) is None
        with pytest.raises(KeyError), raising_ours(TABLE, "Deleting"):
            raise KeyError("mistake of ours")

    def test_what_is_ours_already_is_not_translated_again(self) -> None:
        with pytest.raises(OverloadedError, match=r"^Full\.$"), raising_ours({Exception: BackendError}, "Asking"):
            raise OverloadedError("Full.")
