"""What a caller gives fits the model, unchanged, or is refused with a word on what to do."""

import numpy as np
import pandas as pd
import pytest

from modelserve.errors import SignatureError
from modelserve.tensors import Array, Checked, Signature, TensorSpec

Y = (TensorSpec("y", "float32", ("batch",)),)


def takes(dtype: str = "float32", shape: tuple[int | str, ...] = ("batch", 2), **more: object) -> Signature:
    return Signature((TensorSpec("x", dtype, shape, **more),), Y)


def check(signature: Signature, given: object) -> Array:
    return signature.check(given).tensors["x"]


PAIR = Signature((TensorSpec("left", "float32", ("batch", 2)), TensorSpec("right", "int64", ("batch",))), Y)
TABLE = takes("float64", ("batch", 2), columns=("a", "b"))


class Columns:
    """A table as polars has one: names, columns by name, and arrays of them; no pandas."""

    def __init__(self, **columns: list) -> None:
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name: str) -> pd.Series:
        return pd.Series(self._columns[name])

    def to_numpy(self) -> Array:
        return np.stack([np.asarray(column) for column in self._columns.values()], axis=1)


class TestWhatIsTaken:
    def test_an_array_as_wanted_is_not_copied(self) -> None:
        given = np.zeros((3, 2), np.float32)
        assert takes().check(given) == Checked({"x": given}, 3, False)
        assert check(takes(), given) is given

    @pytest.mark.parametrize(
        "given",
        [
            [[1.0, 2.0], [3.0, 4.0]],
            ((1, 2), (3, 4)),
            np.array([[1, 2], [3, 4]], np.int16),
            np.array([[1, 2], [3, 4]], np.float64),
            np.array([[1, 2], [3, 4]], ">f4"),
            np.array([[1, 2], [3, 4]], np.float32, order="F"),
            np.array([[1, 2], [3, 4]], object),
            {"x": [[1, 2], [3, 4]]},
            pd.DataFrame({"p": [1, 3], "q": [2, 4]}),
            pd.DataFrame({"p": [1, 3], "q": [2.0, 4.0]}),
            Columns(p=[1, 3], q=[2, 4]),
        ],
    )
    def test_the_same_rows_in_any_form_are_the_same_array(self, given: object) -> None:
        array = check(takes(), given)
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.tolist() == [[1, 2], [3, 4]]

    def test_one_row_may_come_without_the_batch_axis(self) -> None:
        checked = takes().check([1.0, 2.0])
        assert (checked.tensors["x"].shape, checked.rows, checked.single) == ((1, 2), 1, True)

    def test_a_scalar_is_one_row_of_a_model_of_scalars(self) -> None:
        checked = takes(shape=("batch",)).check(3.0)
        assert (checked.tensors["x"].tolist(), checked.single) == ([3.0], True)

    def test_python_floats_need_not_be_exact_in_the_models_dtype(self) -> None:
        assert check(takes(), [[0.1, 0.2]]).dtype == np.float32

    def test_whole_numbers_as_fractions_are_taken_for_integers(self) -> None:
        assert check(takes("int64", ("batch",)), np.array([1.0, -2.0])).tolist() == [1, -2]

    def test_truth_values_are_taken_where_they_are_wanted(self) -> None:
        assert check(takes("bool", ("batch",)), [True, False]).tolist() == [True, False]

    def test_missing_numbers_are_nan_where_the_model_takes_it(self) -> None:
        assert np.isnan(check(takes(), [[None, 1.0]])[0, 0])

    @pytest.mark.parametrize("given", [["a\0", ""], np.array(["a\0", ""], object), pd.Series(["a\0", ""])])
    def test_text_is_taken_to_its_last_character(self, given: object) -> None:
        assert check(takes("string", ("batch",)), given).tolist() == ["a\0", ""]

    def test_a_tuple_is_inputs_in_order_and_a_dict_by_name(self) -> None:
        left, right = [[1.0, 2.0]], [3]
        for given in ((left, right), {"right": right, "left": left}):
            checked = PAIR.check(given)
            assert list(checked.tensors) == ["left", "right"]
            assert checked.tensors["right"].tolist() == [3]

    def test_a_tables_columns_go_by_name_in_any_order_and_more_may_be_there(self) -> None:
        frame = pd.DataFrame({"b": [2.0], "more": ["text"], "a": [1.0]})
        assert check(TABLE, frame).tolist() == [[1.0, 2.0]]
        assert check(TABLE, Columns(b=[2.0], a=[1.0])).tolist() == [[1.0, 2.0]]

    def test_a_table_gives_each_input_its_column(self) -> None:
        signature = Signature((TensorSpec("n", "int64", ("batch", 1)), TensorSpec("t", "string", ("batch",))), Y)
        tensors = signature.check(pd.DataFrame({"t": ["p", "q"], "n": [1, 2]})).tensors
        assert tensors["n"].tolist() == [[1], [2]]
        assert tensors["t"].tolist() == ["p", "q"]

    @pytest.mark.parametrize(
        ("given", "single"),
        [
            ({"n": 1, "t": "p"}, True),
            (pd.Series({"t": "p", "more": 0, "n": 1}), True),
            (pd.DataFrame({"n": [1], "t": ["p"]}).iloc[0], True),
            ({"n": [1], "t": ["p"]}, False),
            ({"n": [1], "t": "p"}, True),
            ({"n": [[1]], "t": ["p"]}, False),
        ],
    )
    def test_one_row_of_a_table_is_told_from_columns_of_one_row(self, given: object, single: bool) -> None:
        signature = Signature((TensorSpec("n", "int64", ("batch", 1)), TensorSpec("t", "string", ("batch", 1))), Y)
        checked = signature.check(given)
        assert (checked.tensors["n"].tolist(), checked.tensors["t"].tolist()) == ([[1]], [["p"]])
        assert checked.single is single

    def test_plain_columns_are_a_table(self) -> None:
        signature = Signature((TensorSpec("n", "int64", ("batch", 1)), TensorSpec("t", "string", ("batch", 1))), Y)
        checked = signature.check({"n": [1, 2], "t": np.array(["p", "q"])})
        assert (checked.tensors["n"].tolist(), checked.rows, checked.single) == ([[1], [2]], 2, False)

    @pytest.mark.parametrize(
        ("given", "want", "single"),
        [
            ({"b": 2.0, "a": 1.0}, [[1, 2]], True),
            ({"b": [2.0, 4.0], "a": [1.0, 3.0]}, [[1, 2], [3, 4]], False),
            ({"b": np.array([2]), "a": np.array([1.0])}, [[1, 2]], False),
            (pd.Series({"b": 2.0, "a": 1.0}), [[1, 2]], True),
            (pd.Series([1.0, 2.0]), [[1, 2]], True),
            ({"x": [[1.0, 2.0]]}, [[1, 2]], False),
        ],
    )
    def test_a_row_or_columns_by_name_fit_a_table_that_is_one_input(
        self, given: object, want: list, single: bool
    ) -> None:
        checked = TABLE.check(given)
        assert (checked.tensors["x"].tolist(), checked.single) == (want, single)

    def test_columns_named_by_numbers_are_found_by_their_text(self) -> None:
        signature = takes("float64", ("batch", 2), columns=("0", "1"))
        assert check(signature, pd.DataFrame([[1.0, 2.0]])).tolist() == [[1.0, 2.0]]


REFUSED = {
    "wrong number of features": (takes(), np.zeros((3, 5), np.float32), r"float32\[batch, 2\], got shape \(3, 5\)"),
    "too many axes": (takes(), np.zeros((1, 1, 2), np.float32), "2 axes are wanted"),
    "ragged": (takes(), [[1.0, 2.0], [3.0]], "same length"),
    "ragged text": (takes("string", ("batch", 2)), [["a", "b"], ["c"]], "same length"),
    "empty batch": (takes(), np.zeros((0, 2), np.float32), "at least one row"),
    "empty list": (takes(shape=("batch",)), [], "at least one row"),
    "nothing": (takes(), None, "must be"),
    "NaN": (takes(allows_nan=False), np.array([[1, 2], [3, np.nan]], np.float32), r"first in row 1.*Fill or drop"),
    "missing as NaN": (takes(allows_nan=False), [[None, 1.0]], "NaN"),
    "typed doubles that float32 rounds": (takes(), np.array([[0.1, 0.2]]), r"\.astype\('float32'\)"),
    "overflow": (takes(), [[1e300, 0.0]], "would change"),
    "fractions for integers": (takes("int64", ("batch",)), [1.5], "would change"),
    "NaN for integers": (takes("int64", ("batch",)), [float("nan")], "would change"),
    "a minus for unsigned": (takes("uint64", ("batch",)), np.array([-1]), "would change"),
    "a minus for unsigned, listed": (takes("uint8", ("batch",)), [-1], "would change"),
    "too large for signed": (takes("int8", ("batch",)), np.array([200], np.uint8), "would change"),
    "2**64 as uint64": (takes("uint64", ("batch",)), np.array([2.0**64]), "would change"),
    "2**63 as int64": (takes("int64", ("batch",)), np.array([2.0**63]), "would change"),
    "large integers as float64": (takes("float64", ("batch",)), np.array([2**53 + 1]), "would change"),
    "the largest integer as float64": (takes("float64", ("batch",)), np.array([2**64 - 1], np.uint64), "would change"),
    "large objects as float64": (takes("float64", ("batch",)), np.array([2**53 + 1], object), "round"),
    "a number beyond all floats": (takes("float64", ("batch",)), [10**400], "not all numbers"),
    "text that looks like numbers": (takes(shape=("batch",)), ["1.5"], "must be float32"),
    "text among objects": (takes(shape=("batch",)), np.array(["1.5"], object), "found str '1.5'"),
    "truth for numbers": (takes(shape=("batch",)), [True], "must be float32"),
    "truth among objects": (takes(shape=("batch",)), np.array([True], object), "found bool True"),
    "numbers for truth": (takes("bool", ("batch",)), [1, 0], "must be bool"),
    "numbers for text": (takes("string", ("batch",)), [1], "must be text, got int 1"),
    "a number among text": (takes("string", ("batch",)), ["a", 1], "must be text, got int 1"),
    "bytes for text": (takes("string", ("batch",)), [b"a"], "must be text, got bytes"),
    "complex": (takes(shape=("batch",)), [1j], "got complex128"),
    "dates": (takes(shape=("batch",)), np.array(["2026-01-01"], "M8[D]"), "must be float32"),
    "masked": (takes(shape=("batch",)), np.ma.array([1.0], mask=[True]), r"\.filled"),
    "unknown name": (takes(), {"z": [[1, 2]]}, "unknown: 'z'; missing: 'x'"),
    "missing name": (PAIR, {"left": [[1, 2]]}, "missing: 'right'"),
    "one for two": (PAIR, [[1, 2]], "takes 2 inputs.*Give a dict"),
    "tuple too short": (PAIR, ([[1, 2]],), "got a tuple of 1"),
    "batches of two sizes": (PAIR, ([[1, 2]], [1, 2]), "'right' has 2 along 'batch'.*'left' has 1"),
    "one with the batch axis, one without": (PAIR, ([1, 2], [1]), "with it, or none"),
    "column missing by name": (TABLE, {"a": 1.0}, "'a', 'b'; missing: 'b'"),
    "columns of two lengths": (TABLE, {"a": [1.0], "b": [1.0, 2.0]}, r"one length, got 'a': \(1,\), 'b': \(2,\)"),
    "a cell and a column": (TABLE, {"a": 1.0, "b": [1.0]}, "one length"),
    "column missing": (TABLE, pd.DataFrame({"a": [1.0]}), r"lacks the column\(s\) 'b'; it has 'a'"),
    "column twice": (TABLE, pd.DataFrame([[1.0, 2.0, 3.0]], columns=["a", "a", "b"]), "several columns 'a'"),
    "column of large integers": (TABLE, pd.DataFrame({"a": [2**53 + 1], "b": [0.5]}), "'a' must be float64"),
    "column of text": (TABLE, pd.DataFrame({"a": ["one"], "b": [0.5]}), "must be float64"),
    "table without rows": (TABLE, pd.DataFrame({"a": [], "b": []}), "at least one row"),
}  # fmt: skip


@pytest.mark.parametrize(("signature", "given", "said"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_by_name(signature: Signature, given: object, said: str) -> None:
    with pytest.raises(SignatureError, match=said):
        signature.check(given)


class TestSignatures:
    def test_the_first_output_is_the_primary_one_unless_said(self) -> None:
        assert takes().primary == "y"

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda: Signature((), Y), "at least one"),
            (lambda: Signature(Y, ()), "at least one"),
            (lambda: Signature((*Y, *Y), Y), "differ"),
            (lambda: Signature(Y, Y, "z"), "no output 'z'; the outputs are y"),
            (lambda: TensorSpec("x", "float31", ()), "float31"),
            (lambda: TensorSpec("x", "float32", (-1,)), "'batch'"),
            (lambda: TensorSpec("x", "float32", (None,)), "'batch'"),
        ],
    )
    def test_one_that_makes_no_sense_is_refused(self, make: object, said: str) -> None:
        with pytest.raises(SignatureError, match=said):
            make()

    def test_rows_can_be_joined_only_where_all_share_the_first_axis(self) -> None:
        assert takes().is_batched
        assert not Signature((TensorSpec("x", "float32", (3,)),), Y).is_batched
        assert not Signature((TensorSpec("x", "float32", ("rows",)),), Y).is_batched
