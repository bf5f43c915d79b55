"""A model that takes images as they are decoded: the preprocessing in its graph is Pillow's and numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

import modelserve as ms
from modelserve.bundle import Bundle
from modelserve.convert import convert, pictured
from modelserve.convert.detect import find_converter
from modelserve.convert.images import ImageInput, prepared
from modelserve.errors import ConversionError, InputError, SignatureError, UnfaithfulError
from modelserve.session import Session
from modelserve.tensors import Array

pytestmark = pytest.mark.long

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PILLOW = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "nearest": Image.NEAREST}
SIZES = [(8, 8), (9, 30), (100, 31), (1, 1), (3, 200)]


def images(height: int, width: int, rows: int = 2, channels: int = 3) -> Array:
    return np.random.default_rng(height).integers(0, 256, (rows, height, width, channels), dtype=np.uint8)


def by_pillow(image: ImageInput, one: Array) -> Array:
    """One image as torchvision prepares it, by Pillow: float64 (height, width, channels)."""
    height, width = image.resized_to(*one.shape[:2])
    resized = np.asarray(Image.fromarray(one).resize((width, height), PILLOW[image.interpolation]))
    wanted = image.height_width
    top, left = (round((have - want) / 2.0) for have, want in zip((height, width), wanted, strict=True))
    cut = resized[top : top + wanted[0], left : left + wanted[1]].astype(np.float64)
    return (cut * image.scale - np.asarray(image.mean)) / np.asarray(image.std)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolve = torch.nn.Conv2d(3, 4, 3)
        self.head = torch.nn.Linear(4 * 6 * 6, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.convolve(pixels)).flatten(1))


def bundle_of(source: Any, example: Any = None, **image: Any) -> Bundle:
    return convert(source, example, inputs=ImageInput(**{"size": 8, **image}))


def onnx_model(shape: list[Any], dtype: int = TensorProto.FLOAT, opset: int = 18) -> onnx.ModelProto:
    """Gives back what it takes, so that a test sees what the preprocessing made."""
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Identity", ["image_x"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value("image_x", dtype, shape)], [value("y", dtype, shape)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


FLAT = onnx_model(["n", 3, "h", "w"])


def answers(bundle: Bundle, given: Any) -> Array:
    return next(iter(Session(bundle).run(bundle.signature.check(given).tensors).values()))


DESCRIPTIONS: list[dict[str, Any]] = [
    {"mean": MEAN, "std": STD},
    {"size": (8, 5), "interpolation": "bicubic"},
    {"interpolation": "nearest", "scale": 1.0},
    {"size": (6, 8), "shorter_side": 9, "mean": MEAN, "std": STD},
    {"shorter_side": 8, "interpolation": "bicubic", "mean": 0.5, "std": 0.5},
]


@pytest.mark.parametrize("described", DESCRIPTIONS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_numpy_prepares_images_as_pillow_does(described: dict[str, Any], size: tuple[int, int]) -> None:
    image = ImageInput(**{"size": 8, **described})
    rows = images(*size)
    got = prepared(image, rows, "NHWC")
    wanted = np.stack([by_pillow(image, one) for one in rows])
    # One step of 255: Pillow rounds between its two passes, and which comes first differs by its version.
    step = 1.01 * image.scale / np.min(image.std)
    assert np.abs(got - wanted).max() <= step
    assert (np.abs(got - wanted) > step / 100).mean() < 0.2


@pytest.mark.parametrize("described", DESCRIPTIONS, ids=str)
def test_the_graph_prepares_images_of_any_size_as_pillow_does(described: dict[str, Any]) -> None:
    image = ImageInput(**{"size": 8, **described})
    bundle = bundle_of(FLAT, **described)
    for size in SIZES:
        rows = images(*size)
        wanted = np.stack([by_pillow(image, one) for one in rows]).transpose(0, 3, 1, 2)
        assert np.abs(answers(bundle, rows) - wanted).max() <= 1.01 * image.scale / np.min(image.std)


def test_a_network_answers_images_as_it_answers_what_they_become() -> None:
    module, rows = Net().eval(), images(31, 17)
    bundle = bundle_of(module, rows, mean=MEAN, std=STD)
    assert str(bundle.signature.inputs[0]) == "uint8[batch, height, width, 3]"
    with torch.no_grad():
        wanted = module(torch.from_numpy(prepared(ImageInput(8, MEAN, STD), rows, "NCHW"))).numpy()
    np.testing.assert_allclose(answers(bundle, rows), wanted, atol=0.02)  # a step of 255 may be rounded otherwise
    assert bundle.rows_independent
    assert np.shape(answers(bundle, rows[0])) == (1, 2)
    preprocess = bundle.manifest.lineage[-1]
    assert (preprocess.name, preprocess.settings["size"], preprocess.settings["layout"]) == (
        "preprocess images", [8, 8], "NCHW"
    )  # fmt: skip


def test_the_certificate_tells_of_both_comparisons_and_of_the_sizes_tried() -> None:
    reports = bundle_of(Net(), mean=MEAN, std=STD).manifest.reports
    assert reports[0]["is_faithful"]
    assert {"height of 1", "width of 1"} <= reports[0]["tried"].keys()
    (beside,) = [report for report in reports if "preprocessing" in report.get("about", "")]
    assert {"8x8", "17x11", "1x1"} <= beside["tried"].keys()


def test_blue_comes_first_where_the_model_wants_it_so() -> None:
    rows = images(8, 8)
    got = answers(bundle_of(FLAT, rows, scale=1.0, channels="BGR"), rows)
    np.testing.assert_array_equal(got, rows[..., ::-1].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("opset", [11, 18, 21])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        (["n", 3, 8, 8], TensorProto.FLOAT),
        (["n", 8, 8, 3], TensorProto.FLOAT16),
        (["n", 8, 8, 1], TensorProto.DOUBLE),
        (["n", 3, "h", "w"], TensorProto.UINT8),
    ],
    ids=str,
)
def test_any_graph_of_any_layout_and_dtype_takes_images(shape: list[Any], dtype: int, opset: int) -> None:
    channels = shape[3] if shape[1] == 8 else shape[1]
    rows = images(8, 8, channels=channels)
    bundle = bundle_of(onnx_model(shape, dtype, opset), rows, scale=1.0)
    got = answers(bundle, rows)
    np.testing.assert_array_equal(got if shape[1] == 8 else got.transpose(0, 2, 3, 1), rows)
    assert bundle.signature.inputs[0].name == "image_x"


def test_one_input_of_several_takes_images() -> None:
    class Two(torch.nn.Module):
        def forward(self, pixels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return pixels.mean(dim=(1, 2, 3)) * weight

    rows, weight = images(20, 10), np.float32([1, 2])
    given = {"pixels": rows, "weight": weight}
    bundle = convert(Two(), given, inputs={"pixels": ImageInput(8)})
    assert [spec.dtype for spec in bundle.signature.inputs] == ["uint8", "float32"]
    wanted = prepared(ImageInput(8), rows, "NCHW").mean(axis=(1, 2, 3)) * weight
    np.testing.assert_allclose(answers(bundle, given), wanted, rtol=1e-3)
    with pytest.raises(InputError, match="a dict with 'pixels'"):
        convert(Two(), rows, inputs={"pixels": ImageInput(8)})


@pytest.mark.long
def test_a_keras_model_takes_channels_last_and_needs_no_example() -> None:
    import tensorflow as tf

    layers = tf.keras.layers
    model = tf.keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)])
    bundle = bundle_of(model, mean=MEAN, std=STD)
    rows = images(50, 40)
    wanted = model.predict(prepared(ImageInput(8, MEAN, STD), rows, "NHWC"), verbose=0)
    np.testing.assert_allclose(answers(bundle, rows), wanted, atol=0.05)


def test_the_same_images_give_the_same_digest() -> None:
    assert bundle_of(Net(), mean=MEAN).digest == bundle_of(Net(), mean=MEAN).digest
    assert bundle_of(Net(), mean=MEAN).digest != bundle_of(Net(), mean=0.5).digest


@pytest.mark.long
def test_a_preprocessing_that_is_not_numpys_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictured, "prepared", lambda *given: prepared(*given)[:, ::-1])
    with pytest.raises(UnfaithfulError, match="differs from numpy's"):
        bundle_of(Net())


class TestRefusals:
    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"size": 0}, "size must be"),
            ({"size": (8, 8, 3)}, "size must be"),
            ({"size": 8.0}, "size must be"),
            ({"size": 8, "std": 0}, "std must not"),
            ({"size": 8, "mean": float("nan")}, "finite"),
            ({"size": 8, "interpolation": "lanczos"}, "bilinear, bicubic, nearest"),
            ({"size": 8, "channels": "HSV"}, "RGB or BGR"),
            ({"size": 8, "layout": "CHW"}, "NCHW, NHWC"),
            ({"size": 8, "shorter_side": 7}, "shorter_side"),
        ],
    )
    def test_a_description_that_makes_no_sense(self, values: dict[str, Any], said: str) -> None:
        with pytest.raises(InputError, match=said):
            ms.ImageInput(**values)

    def test_means_of_another_number_of_channels(self) -> None:
        with pytest.raises(InputError, match="2 values, the model 3 channels"):
            bundle_of(FLAT, mean=(0.5, 0.5))

    @pytest.mark.parametrize("example", [np.zeros((2, 3, 8, 8), np.float32), np.zeros((8, 8), np.uint8), ["a"]])
    def test_an_example_that_is_no_images(self, example: Any) -> None:
        with pytest.raises(InputError, match="images as they are decoded"):
            bundle_of(FLAT, example)

    def test_a_model_without_an_input_for_images(self) -> None:
        with pytest.raises((SignatureError, ConversionError)):
            bundle_of(torch.nn.Linear(4, 2))
        with pytest.raises(SignatureError, match=r"must be float32\[batch, 3, 16, 16\]"):
            bundle_of(onnx_model(["n", 3, 16, 16]))
        table = find_converter(onnx_model(["n", 5])).drafts(onnx_model(["n", 5]), None)[0]()
        with pytest.raises(SignatureError, match=r"needs a model with an input of numbers of shape \(batch, 3, 8, 8\)"):
            pictured.pictured(table, ImageInput(8), images(8, 8))

    @pytest.mark.parametrize("inputs", [3, "images", {"x": 3}, ImageInput])
    def test_something_else_as_inputs(self, inputs: Any) -> None:
        with pytest.raises(InputError, match="takes an ImageInput"):
            convert(FLAT, images(8, 8), inputs=inputs)
