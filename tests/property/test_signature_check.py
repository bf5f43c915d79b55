"""The check of inputs gives values as they were, or none."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelserve.errors import SignatureError
from modelserve.tensors import OIP_DATATYPES, Signature, TensorSpec
from modelserve.testing import strategies

NUMBERS = sorted(set(OIP_DATATYPES) - {"string", "bool"})


def exactly(value: float) -> object:
    """A number that compares with any other exactly, NaN with itself."""
    return "nan" if value != value else value


@given(st.data())
def test_what_fits_comes_through_as_it_was(data: st.DataObject) -> None:
    signature = data.draw(strategies.signatures(batched=True))
    tensors = data.draw(strategies.tensors(signature))
    checked = signature.check(tensors)
    assert checked.rows == 2
    for name, array in tensors.items():
        assert checked.tensors[name].dtype == array.dtype
        assert checked.tensors[name].tobytes() == array.tobytes() or array.dtype == object
        assert [exactly(item) for item in checked.tensors[name].flat] == [exactly(item) for item in array.flat]


@given(st.data(), st.sampled_from(NUMBERS), st.sampled_from(NUMBERS))
def test_numbers_of_one_dtype_are_the_same_in_another_or_refused(data: st.DataObject, given_as: str, want: str) -> None:
    array = data.draw(hnp.arrays(np.dtype(given_as), hnp.array_shapes(max_dims=1, max_side=3)))
    signature = Signature((TensorSpec("x", want, ("batch",)),), (TensorSpec("y", "float32", ("batch",)),))
    try:
        checked = signature.check(array).tensors["x"]
    except SignatureError:
        assume(False)
    assert checked.dtype == np.dtype(want)
    # Python's numbers compare exactly, whole ones with fractions too.
    assert [exactly(item) for item in checked.tolist()] == [exactly(item) for item in array.tolist()]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=2),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=8,
    ),
    strategies.dtypes(),
)
def test_whatever_is_given_is_taken_or_refused_and_nothing_else_happens(anything: object, dtype: str) -> None:
    signature = Signature((TensorSpec("x", dtype, ("batch", 2)),), (TensorSpec("y", "float32", ("batch",)),))
    try:
        array = signature.check(anything).tensors["x"]
    except SignatureError:
        return
    assert array.dtype == signature.inputs[0].numpy_dtype
    assert array.shape[1:] == (2,)
