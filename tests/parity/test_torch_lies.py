"""What torch's exporters get wrong without a word: each is caught or repaired."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import CLOSE, answers, bundle_of, ids, numbers, step
from torch import nn
from torch_modules import Branching, Looping, expected

from modelserve.convert import convert
from modelserve.convert.from_torch_plain import oddity
from modelserve.errors import (
    ConversionError,
    SignatureError,
    UnfaithfulError,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # the framework's own deprecations are not ours to mend

long = pytest.mark.long


class TestNoSilentLies:
    """What torch's exporters are known to get wrong without a word."""

    def test_a_trace_that_would_freeze_a_decision_is_refused(self) -> None:
        settings: dict[str, int] = {}

        class Unscriptable(Branching):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                scale = {"of": 2, **settings}  # which torch.jit.script does not know
                return x * scale["of"] if x.sum() > 0 else x - 1

        with pytest.raises(ConversionError, match="freeze"):
            convert(Unscriptable(), np.abs(numbers(5, 4)))

    def test_a_branch_that_a_trace_would_freeze_is_kept(self) -> None:
        bundle = bundle_of(Branching(), np.concatenate([np.ones((2, 4)), -np.ones((3, 4))]).astype(np.float32))
        low = -np.ones((2, 4), np.float32)
        np.testing.assert_array_equal(answers(bundle, low)["output"], low - 1)
        assert not bundle.rows_independent

    @long
    def test_a_loop_as_long_as_the_example_is_no_loop_over_any_length(self) -> None:
        settings: dict[str, int] = {}

        class Unscriptable(Looping):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                scale = {"of": 2, **settings}
                return super().forward(x) * scale["of"]

        bundle = bundle_of(Unscriptable(), numbers(3, 5, 4))
        assert bundle.signature.inputs[0].shape == ("batch", 5, 4)
        assert step(bundle)["narrowed"] == ["sequence"]

    def test_every_part_is_in_its_own_mode_afterwards(self) -> None:
        module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        module[1].eval()
        mean = module[1].running_mean.clone()
        bundle_of(module, numbers(8, 4))
        assert [part.training for part in module] == [True, False, True]
        assert torch.equal(module[1].running_mean, mean)
        with pytest.raises(SignatureError):
            convert(module, numbers(8, 5))
        assert [part.training for part in module] == [True, False, True]

    def test_an_output_may_be_called_as_the_exporter_calls_a_value_inside(self) -> None:
        class Named(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table = nn.Embedding(10, 4)

            def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
                return {"embedding": self.table(ids).cumsum(1), "ids": ids + 1}

        module, x = Named().eval(), ids(3, 5) % 10
        bundle = bundle_of(module, x)
        assert (step(bundle)["route"], "tried" in step(bundle)) == ("export", False)
        got = answers(bundle, x)
        assert list(got) == ["embedding", "ids_output"]
        for array, want in zip(got.values(), expected(module, x), strict=True):
            np.testing.assert_allclose(array, want, **CLOSE)

    def test_an_input_handed_on_and_one_tensor_twice_are_outputs_of_their_own(self) -> None:
        class Echo(nn.Module):
            def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
                y = x * 2
                return x, y, y

        x = numbers(3, 4)
        for array, want in zip(answers(bundle_of(Echo(), x), x).values(), (x, x * 2, x * 2), strict=True):
            np.testing.assert_array_equal(array, want)

    def test_an_input_that_changes_nothing_stays_an_input(self) -> None:
        class Half(nn.Module):
            def forward(self, x: torch.Tensor, unused: torch.Tensor) -> torch.Tensor:
                return x * 2

        given = (numbers(3, 4), numbers(3, 2))
        bundle = bundle_of(Half(), given)
        assert [spec.name for spec in bundle.signature.inputs] == ["x", "unused"]
        np.testing.assert_array_equal(answers(bundle, given)["output"], given[0] * 2)

    @long
    def test_an_answer_of_chance_is_refused(self) -> None:
        class Chance(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + torch.rand_like(x)

        with pytest.raises(UnfaithfulError):
            convert(Chance(), numbers(4, 3))

    @pytest.mark.parametrize("answer", ["text", 3])
    def test_answers_that_are_no_tensors_are_refused_and_leave_nothing(self, answer: Any, tmp_path: Path) -> None:
        class Odd(nn.Module):
            def forward(self, x: torch.Tensor) -> Any:
                return {"good": x, "odd": answer}

        with pytest.raises(ConversionError, match="odd"):
            convert(Odd(), numbers(2, 2), into=tmp_path / "bundle")
        assert list(tmp_path.glob("bundle*")) == []

    @long
    def test_what_no_route_takes_is_refused_with_every_reason(self, record_source: Any) -> None:
        module = nn.Sequential(nn.Linear(4, 2)).eval()
        quantized = torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)
        with pytest.raises(ConversionError, match=r"route 1(.|\n)*quantized::linear_dynamic") as caught:
            convert(quantized, numbers(3, 4))
        reason = next(line for line in str(caught.value).splitlines() if "quantized::linear_dynamic" in line)
        record_source("PyTorch", "quantize_dynamic", refused=reason.strip())

    @long
    def test_nothing_is_printed_when_a_route_fails(self, capfd: pytest.CaptureFixture[str]) -> None:
        class Decomposed(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.linalg.svd(x)[1]

        with pytest.raises(ConversionError):
            convert(Decomposed(), numbers(2, 4, 4))
        assert capfd.readouterr() == ("", "")


class TestPlainLayers:
    """Only what cannot depend on values or sizes may go by a bare trace."""

    @pytest.mark.parametrize(
        ("forward", "found"),
        [
            (lambda self, x: torch.relu(self.layer(x)) + x * 2, ""),
            (lambda self, x: x if x.sum() > 0 else self.layer(x), "control flow"),
            (lambda self, x: self.layer(x) * float(x.max()), "float"),
            (lambda self, x: self.layer(x) * x.shape[0], "getattr"),
            (lambda self, x: self.layer(x).view(3, -1), "view"),
            (lambda self, x: self.layer(x)[x], "getitem"),
            (lambda self, x: self.layer(x)[: len(x)], "len"),
            (lambda self, x: self.recur(x)[0][:, -1], ""),
            (lambda self, x: self.attend(x, x, x)[0], "MultiheadAttention"),
            (lambda self, x, y=None: self.layer(x), "not given"),
        ],
    )
    def test_what_is_not_plain_is_seen(self, forward: Any, found: str) -> None:
        class Module(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer, self.recur, self.attend = nn.Linear(4, 4), nn.LSTM(4, 4), nn.MultiheadAttention(4, 2)

        Module.forward = forward
        seen = oddity(Module(), 1)
        assert found in seen
        assert bool(found) == bool(seen)

    def test_code_hung_into_a_layer_is_seen(self) -> None:
        module = nn.Sequential(nn.Linear(4, 4))
        assert not oddity(module, 1)
        module[0].register_forward_hook(lambda *_: None)
        assert oddity(module, 1)

    def test_a_hook_that_changes_the_answer_is_served(self) -> None:
        module, x = nn.Sequential(nn.Linear(4, 4)), numbers(3, 4)
        module[0].register_forward_hook(lambda module, given, answer: answer * 2)
        np.testing.assert_allclose(answers(bundle_of(module, x), x)["output"], expected(module, x)[0], **CLOSE)

    @pytest.mark.long
    def test_a_network_of_plain_layers_needs_no_more_than_the_quick_exporter(self) -> None:
        program = (
            "import sys, torch, numpy as np\n"
            "from modelserve.convert import convert\n"
            "convert(torch.nn.Linear(4, 2), np.ones((3, 4), np.float32))\n"
            "bundle = convert(torch.nn.LSTM(4, 2, batch_first=True), np.ones((3, 5, 4), np.float32))\n"
            "assert bundle.signature.inputs[0].shape == ('batch', 'sequence', 4)\n"
            "assert not {'onnxscript', 'torch._dynamo'} & set(sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=100
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
