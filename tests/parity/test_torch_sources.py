"""PyTorch modules, scripts and programs: the bundle answers what the module answers, at every size that it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from asking import CLOSE, answers, bundle_of, ids, numbers, step
from torch import nn
from torch_modules import Branching, Encoder, Looping, expected, flat

from modelserve.bundle import Bundle
from modelserve.convert import convert
from modelserve.errors import (
    ConversionError,
    ExampleRequiredError,
    SignatureError,
)
from modelserve.tensors import Array

pytestmark = pytest.mark.filterwarnings("ignore")  # the framework's own deprecations are not ours to mend

long = pytest.mark.long


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, **settings: Any) -> None:
        super().__init__()
        self.recur = kind(5, 6, batch_first=True, **settings)
        self.head = nn.Linear(12 if settings.get("bidirectional") else 6, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        states, _ = self.recur(x)
        return {"last": self.head(states[:, -1]), "states": states}


class Causal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.attend(x, x, x, attn_mask=mask, need_weights=False)[0]
        return found


class TwoInputs(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return left + right, (left * right).sum(dim=1)


class Nested(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return {"first": x + 1, "more": (x * 2, {"deep": x * 3}), "nothing": None}


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(
        self, x: torch.Tensor, scale: torch.Tensor | None = None, double: bool = False
    ) -> dict[str, torch.Tensor]:
        y = self.layer(x)
        y = y if scale is None else y * scale
        return {"logits": y * 2 if double else y, "probs": y.softmax(-1)}


class OfDict(nn.Module):
    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["a"] + batch["b"]


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recur = nn.LSTM(3, 4)

    def forward(self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]) -> Any:
        return self.recur(x, state)


def convolution() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
    )


class Case(NamedTuple):
    """A kind of module, an example, and other inputs that differ in every axis that must be free."""

    title: str
    build: Callable[[], nn.Module]
    example: tuple[Array, ...]
    others: list[tuple[Array, ...]]
    dynamic: list[str]
    route: str = "export"


MASK = np.triu(np.full((7, 7), -np.inf, np.float32), 1)
CASES = [
    Case(
        "Layers in a row (MLP)",
        lambda: nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.9), nn.Linear(16, 3)),
        (numbers(5, 8),),
        [(numbers(1, 8),), (numbers(9, 8),)],
        ["batch"],
        "plain layers",
    ),
    Case(
        "Convolutions, images of any size",
        convolution,
        (numbers(5, 3, 12, 12),),
        [(numbers(1, 3, 12, 12),), (numbers(2, 3, 17, 9),)],
        ["batch", "height", "width"],
        "plain layers",
    ),
    Case(
        "Control flow that depends on values",
        Branching,
        (numbers(5, 4),),
        [(-np.ones((2, 4), np.float32),), (np.ones((3, 4), np.float32),)],
        ["batch", "sequence"],
        "scripted",
    ),
    Case(
        "LSTM",
        Recurrent,
        (numbers(5, 7, 5),),
        [(numbers(1, 2, 5),), (numbers(3, 11, 5),)],
        ["batch", "sequence"],
        "plain layers",
    ),
    Case(
        "GRU in both directions",
        lambda: Recurrent(nn.GRU, bidirectional=True, num_layers=2),
        (numbers(5, 7, 5),),
        [(numbers(1, 2, 5),), (numbers(3, 11, 5),)],
        ["batch", "sequence"],
        "plain layers",
    ),
]
LONG_CASES = [
    Case(
        "A Python loop over the sequence",
        Looping,
        (numbers(3, 5, 4),),
        [(numbers(1, 2, 4),), (numbers(4, 9, 4),)],
        ["batch", "sequence"],
        "scripted",
    ),
    Case(
        "Attention under a square mask",
        Causal,
        (numbers(3, 7, 8), MASK),
        [(numbers(2, 5, 8), MASK[:5, :5])],
        ["batch", "sequence"],
    ),
    Case(
        "Two inputs, a tuple of outputs",
        TwoInputs,
        (numbers(5, 4), numbers(5, 4)),
        [(numbers(1, 4), numbers(1, 4)), (numbers(3, 6), numbers(3, 6))],
        ["batch", "sequence"],
    ),
    Case(
        "Nested outputs",
        Nested,
        (numbers(5, 4),),
        [(numbers(2, 3),)],
        ["batch", "sequence"],
        "plain layers",
    ),
]
EVERY = [pytest.param(case, id=case.title) for case in CASES] + [
    pytest.param(case, id=case.title, marks=long) for case in LONG_CASES
]


class Encoded(NamedTuple):
    module: nn.Module
    example: tuple[Array, Array]
    bundle: Bundle


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    """A transformer whose second row is padded; converted once."""
    module, example = Encoder().train(), (ids(2, 7), np.array([[1] * 7, [1] * 4 + [0] * 3]))
    bundle = convert(module, example, into=tmp_path_factory.mktemp("encoder") / "bundle")
    assert isinstance(bundle, Bundle)
    return Encoded(module, example, bundle)


class TestModules:
    @pytest.mark.parametrize("case", EVERY)
    def test_answers_are_close_at_every_size_that_the_module_takes(self, case: Case, record_source: Any) -> None:
        module = case.build().train()
        bundle = bundle_of(module, case.example if len(case.example) > 1 else case.example[0])
        assert module.training, "the user's module is as it was"
        assert (step(bundle)["dynamic"], step(bundle)["route"]) == (case.dynamic, case.route)
        for given in (case.example, *case.others):
            wanted = expected(module, *given)
            got = answers(bundle, given if len(given) > 1 else given[0])
            for array, want in zip(got.values(), wanted, strict=True):
                assert array.dtype == want.dtype
                np.testing.assert_allclose(array, want, **CLOSE)
        record_source("PyTorch", case.title, bundle)

    @pytest.mark.long
    def test_a_transformer_takes_any_batch_of_any_length(self, encoder: Encoded, record_source: Any) -> None:
        padded = np.tile(np.arange(20) < 15, (3, 1)).astype(np.int64)
        for given in (encoder.example, (ids(1, 3), np.ones((1, 3), np.int64)), (ids(3, 20), padded)):
            got = answers(encoder.bundle, given)
            for array, want in zip(got.values(), expected(encoder.module, *given), strict=True):
                np.testing.assert_allclose(array, want, **CLOSE)
        record_source("PyTorch", "Transformer of ids and mask, any length", encoder.bundle)

    def test_names_and_free_axes_are_the_modules(self, encoder: Encoded) -> None:
        signature = encoder.bundle.signature
        assert {spec.name: spec.shape for spec in signature.inputs} == {
            "ids": ("batch", "sequence"),
            "mask": ("batch", "sequence"),
        }
        assert [spec.shape for spec in signature.outputs] == [("batch", 3), ("batch", "sequence", 16)]

    def test_outputs_are_named_by_keys_and_the_way_to_them(self) -> None:
        names = [spec.name for spec in bundle_of(Nested(), numbers(2, 3)).signature.outputs]
        assert names == ["first", "more_0", "more_1_deep"]

    @pytest.mark.parametrize(
        ("example", "inputs"),
        [
            ({"x": numbers(3, 4), "scale": None, "double": True}, ["x"]),
            ({"scale": numbers(3, 4), "x": numbers(3, 4)}, ["scale", "x"]),
        ],
    )
    def test_arguments_are_given_by_name_and_what_is_no_tensor_is_kept(
        self, example: dict[str, Any], inputs: list[str]
    ) -> None:
        module = Optional().eval()
        bundle = bundle_of(module, example)
        assert [spec.name for spec in bundle.signature.inputs] == inputs
        assert step(bundle).get("constants", {}) == ({"double": "True"} if "double" in example else {})
        arrays = {name: example[name] for name in inputs}
        with torch.no_grad():
            wanted = module(
                **{name: torch.from_numpy(array) for name, array in arrays.items()}, double="double" in example
            )
        for name, want in wanted.items():
            np.testing.assert_allclose(answers(bundle, arrays)[name], want.numpy(), **CLOSE)

    @long
    def test_dicts_and_tuples_of_tensors_are_arguments(self) -> None:
        parts = {"a": numbers(3, 4), "b": numbers(3, 4)}
        np.testing.assert_allclose(answers(bundle_of(OfDict(), parts), parts)["output"], parts["a"] + parts["b"])
        module, x, state = Stateful().eval(), numbers(5, 2, 3), (numbers(1, 2, 4), numbers(1, 2, 4))
        bundle = bundle_of(module, (x, state))
        given = {"x": x, "state_0": state[0], "state_1": state[1]}
        with torch.no_grad():
            wanted = flat(module(torch.from_numpy(x), tuple(map(torch.from_numpy, state))))
        for array, want in zip(answers(bundle, given).values(), wanted, strict=True):
            np.testing.assert_allclose(array, want, **CLOSE)

    def test_float64_rows_are_taken_without_being_narrowed_by_the_user(self) -> None:
        x = numbers(4, 4).astype(np.float64)
        assert bundle_of(nn.Linear(4, 2), x).signature.inputs[0].dtype == "float64"
        wide = bundle_of(nn.Linear(4, 2).double(), x)
        assert (wide.signature.inputs[0].dtype, wide.signature.outputs[0].dtype) == ("float64", "float64")

    @pytest.mark.parametrize(("dtype", "answered"), [(torch.float16, "float16"), (torch.bfloat16, "float32")])
    def test_modules_of_half_precision_are_served(self, dtype: torch.dtype, answered: str, record_source: Any) -> None:
        module, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).to(dtype).eval(), numbers(6, 8)
        bundle = bundle_of(module, x)
        assert (bundle.signature.inputs[0].dtype, bundle.signature.outputs[0].dtype) == ("float32", answered)
        assert step(bundle).get("computes") == ("float32" if dtype is torch.bfloat16 else None)
        with torch.no_grad():
            wanted = module(torch.from_numpy(x).to(dtype)).float().numpy()
        # Eight bits of a number in bfloat16, eleven in float16, rounded anew in each layer.
        np.testing.assert_allclose(answers(bundle, x)["output"], wanted, atol=5e-2)
        limits = "computes in float32, whose answers bfloat16 rounds" if dtype is torch.bfloat16 else ""
        record_source("PyTorch", str(dtype).removeprefix("torch."), bundle, limits=limits)

    def test_a_module_that_fixes_the_batch_is_served_at_that_size(self) -> None:
        class Fixed(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.reshape(4, 3) * 2

        bundle = bundle_of(Fixed(), numbers(4, 3))
        assert bundle.signature.inputs[0].shape == (4, 3)

    @pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
    def test_wrapped_modules_are_the_module_inside(self, wrap: Any) -> None:
        module, x = nn.Sequential(nn.Linear(4, 2)), numbers(3, 4)
        np.testing.assert_allclose(answers(bundle_of(wrap(module), x), x)["output"], expected(module, x)[0], **CLOSE)

    def test_a_missing_example_is_asked_for(self) -> None:
        with pytest.raises(ExampleRequiredError, match=r"example=X\[:8\]"):
            convert(nn.Linear(2, 2))

    @pytest.mark.parametrize(
        ("example", "found"),
        [
            (np.ones((2, 5), np.float32), "cannot be called on the example"),
            ((np.ones((2, 2), np.float32),) * 2, "2 parts"),
            (np.array([["a"]]), "must be numbers"),
            (np.ones((0, 2), np.float32), "at least one row"),
            (None, "does not say"),
            (3.0, "no tensors"),
        ],
    )
    def test_an_example_that_does_not_fit_is_answered_clearly(self, example: Any, found: str) -> None:
        with pytest.raises((SignatureError, ExampleRequiredError), match=found):
            convert(nn.Linear(2, 2), example)

    def test_a_module_without_weights_is_refused(self) -> None:
        with pytest.raises(ConversionError, match="no weights yet"):
            convert(nn.Sequential(nn.LazyLinear(2)), numbers(2, 2))

    def test_padded_places_are_not_zeroed_as_the_fast_path_zeroes_them(self, encoder: Encoded) -> None:
        states = answers(encoder.bundle, encoder.example)["output_1"]
        assert np.abs(states[1, 4:]).min() > 0
        assert torch.backends.mha.get_fastpath_enabled()
