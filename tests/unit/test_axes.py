"""Axes are found by asking the source, and a graph that bakes one in is caught: with sources of plain numpy."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from modelserve.convert.axes import Freedom, explore, lying, output_shape, together
from modelserve.tensors import Array, Tensors

Source = Callable[[Tensors], Mapping[str, Array]]


def found(source: Source, example: Tensors, *, channels_last: bool = False) -> Freedom:
    return explore(source, example, source(example), channels_last=channels_last)


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def linear(tensors: Tensors) -> Mapping[str, Array]:
    return {"y": tensors["x"] @ ones(4, 2)}


def summed(tensors: Tensors) -> Mapping[str, Array]:
    return {"y": tensors["x"].sum(axis=1)}


def masked(tensors: Tensors) -> Mapping[str, Array]:
    x, mask = tensors["x"], tensors["mask"]
    return {"y": x if mask.all() else x * mask, "first": x[:, 0]}


def by_fours(tensors: Tensors) -> Mapping[str, Array]:
    x = tensors["x"]
    return {"y": x.reshape(x.shape[0], x.shape[1] // 4, 4).sum(2) if x.shape[1] % 4 == 0 else x.reshape(-1, 0)}


def attended(tensors: Tensors) -> Mapping[str, Array]:
    return {"y": tensors["x"] + np.einsum("ts,bsf->btf", tensors["mask"], tensors["x"])}


def pooled(tensors: Tensors) -> Mapping[str, Array]:
    with np.errstate(all="ignore"):
        windows = tensors["x"][:, : tensors["x"].shape[1] // 2 * 2].reshape(tensors["x"].shape[0], -1, 2)
        return {"y": windows.sum(axis=(1, 2)) / windows.shape[1]}


def fixed(tensors: Tensors) -> Mapping[str, Array]:
    return {"y": tensors["x"].reshape(5, 4) + ones(5, 4)}


@pytest.mark.parametrize(
    ("source", "example", "axes"),
    [
        pytest.param(linear, {"x": ones(5, 4)}, {"batch": 1}, id="rows only"),
        pytest.param(summed, {"x": ones(5, 4)}, {"batch": 1, "sequence": 1}, id="a sum over any length"),
        pytest.param(masked, {"x": ones(5, 4), "mask": ones(5, 4)}, {"batch": 2, "sequence": 2}, id="a mask of ones"),
        pytest.param(by_fours, {"x": ones(5, 8)}, {"batch": 1, "sequence": 1}, id="multiples only"),
        pytest.param(
            attended,
            {"x": ones(5, 7, 3), "mask": ones(7, 7)},
            {"batch": 1, "sequence": 3, "length": 1},
            id="square mask",
        ),
        pytest.param(fixed, {"x": ones(5, 4)}, {}, id="a batch of five"),
        pytest.param(
            lambda t: {"a": t["x"] * 2, "b": t["z"] * 2},
            {"x": ones(5, 4), "z": ones(3, 4)},
            {"batch": 1, "sequence": 2, "z_axis_0": 1},
            id="two batches",
        ),
    ],
)
def test_the_free_axes_are_those_that_the_source_takes(source: Source, example: Tensors, axes: dict[str, int]) -> None:
    assert {axis.name: len(axis.places) for axis in found(source, example).axes} == axes


def test_a_size_at_which_the_source_has_no_number_is_none_that_it_takes() -> None:
    (axis,) = [axis for axis in found(pooled, {"x": ones(5, 4)}).axes if axis.name == "sequence"]
    assert 1 not in axis.probes
    assert 8 in axis.probes


@pytest.mark.parametrize(
    ("channels_last", "shape", "names"),
    [(False, (2, 3, 8, 9), ("height", "width")), (True, (2, 8, 9, 3), ("height", "width"))],
)
def test_images_have_readable_axes(channels_last: bool, shape: tuple[int, ...], names: tuple[str, str]) -> None:
    freedom = found(lambda t: {"y": t["x"] * 2}, {"x": np.ones(shape)}, channels_last=channels_last)
    first = 1 if channels_last else 2
    assert freedom.shape("x")[first : first + 2] == names


def test_outputs_follow_the_axes_of_the_inputs() -> None:
    freedom = found(masked, {"x": ones(5, 4), "mask": ones(5, 4)})
    assert output_shape("y", freedom) == ("batch", "sequence")
    assert output_shape("first", freedom) == ("batch",)
    assert output_shape("y", found(by_fours, {"x": ones(5, 8)})) == ("batch", "y_axis_1")


def test_sizes_for_the_exporter_differ_from_each_other_and_from_one() -> None:
    freedom = found(summed, {"x": ones(1, 1)})
    shape = together(summed, freedom).tensors["x"].shape
    assert len({*shape}) == 2
    assert min(shape) > 1


def lies(candidate: Source, example: Tensors, source: Source = summed) -> dict[str, str]:
    freedom = found(source, example)
    return lying(candidate, source, freedom, together(source, freedom))


@pytest.fixture
def example() -> Tensors:
    return {"x": np.arange(20, dtype=np.float32).reshape(5, 4)}


def test_an_honest_graph_does_not_lie(example: Tensors) -> None:
    assert lies(summed, example) == {}


@pytest.mark.parametrize("length", [4, 5])
def test_a_length_that_was_baked_in_is_found_whichever_it_is(length: int, example: Tensors) -> None:
    assert set(lies(lambda t: {"y": t["x"][:, :length].sum(axis=1)}, example)) == {"sequence"}


def test_rows_that_were_baked_in_are_found(example: Tensors) -> None:
    assert set(lies(lambda t: {"y": np.resize(summed(t)["y"], 2)}, example)) == {"batch"}


def test_a_graph_that_errs_only_when_several_sizes_change_is_found(example: Tensors) -> None:
    rows, length = together(summed, found(summed, example)).tensors["x"].shape

    def odd(tensors: Tensors) -> Mapping[str, Array]:
        return {"y": summed(tensors)["y"] + (tensors["x"].shape == (rows, length))}

    assert (rows, length) != (5, 4)
    assert set(lies(odd, example)) == {"sequence"}
