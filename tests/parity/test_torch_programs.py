"""TorchScript modules, exported programs, and files of them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import CLOSE, answers, bundle_of, ids, numbers, step
from torch import nn
from torch_modules import Branching, Encoder, expected

from modelserve.convert import convert
from modelserve.errors import (
    UnsupportedSourceError,
)

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),
]  # the framework's own deprecations are not ours to mend

long = pytest.mark.long


class TestScriptsAndPrograms:
    @pytest.mark.parametrize("make", [torch.jit.script, lambda m: torch.jit.trace(m, torch.zeros(2, 4))])
    def test_scripted_and_traced_modules_and_their_files_are_sources(
        self, make: Any, tmp_path: Path, record_source: Any
    ) -> None:
        module, x = nn.Sequential(nn.Linear(4, 2), nn.ReLU()).eval(), numbers(3, 4)
        script = make(module)
        torch.jit.save(script, tmp_path / "script.pt")
        for source in (script, tmp_path / "script.pt"):
            bundle = bundle_of(source, x)
            np.testing.assert_allclose(answers(bundle, x[:1])["output"], expected(module, x[:1])[0], **CLOSE)
        kind = "traced" if "trace" in str(type(script)).lower() else "scripted"
        record_source("PyTorch", f"ScriptModule ({kind}), live or file", bundle)

    def test_a_scripted_branch_stays_one(self) -> None:
        bundle = bundle_of(torch.jit.script(Branching()), np.abs(numbers(5, 4)))
        low = -np.ones((2, 4), np.float32)
        np.testing.assert_array_equal(answers(bundle, low)["output"], low - 1)

    @long
    def test_a_traced_transformer_goes_by_way_of_a_program(self, record_source: Any) -> None:
        module = Encoder().eval()
        given = (ids(2, 7), np.ones((2, 7), np.int64))
        traced = torch.jit.trace(module, tuple(map(torch.from_numpy, given)), check_trace=False)
        bundle = bundle_of(traced, given)
        assert step(bundle)["route"] == "script to export"
        for array, want in zip(answers(bundle, given).values(), expected(module, *given), strict=True):
            np.testing.assert_allclose(array, want, **CLOSE)
        record_source("PyTorch", "Transformer, traced", bundle)

    @pytest.mark.long
    def test_an_exported_program_and_its_file_are_sources_that_need_no_example(
        self, tmp_path: Path, record_source: Any
    ) -> None:
        module = nn.Linear(4, 2).eval()
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(module, (torch.zeros(2, 4),), dynamic_shapes=shapes)
        torch.export.save(program, tmp_path / "program.pt2")
        x = numbers(3, 4)
        for source in (program, tmp_path / "program.pt2"):
            bundle = bundle_of(source)
            np.testing.assert_allclose(answers(bundle, x)["output"], expected(module, x)[0], **CLOSE)
        record_source("PyTorch", "ExportedProgram, live or .pt2", bundle)

    def test_a_program_of_one_size_is_served_at_that_size(self) -> None:
        program = torch.export.export(nn.Linear(4, 2).eval(), (torch.zeros(2, 4),))
        assert bundle_of(program).signature.inputs[0].shape == (2, 4)

    def test_a_pickled_module_is_refused_with_the_way_out(self, tmp_path: Path) -> None:
        torch.save(nn.Linear(2, 2), tmp_path / "pickled.pt")
        with pytest.raises(UnsupportedSourceError, match=r"pickle(.|\n)*Load it yourself"):
            convert(tmp_path / "pickled.pt", numbers(2, 2))

    def test_a_hostile_program_file_runs_nothing(self, tmp_path: Path) -> None:
        program = torch.export.export(nn.Linear(2, 2), (torch.zeros(2, 2),))
        torch.export.save(program, tmp_path / "good.pt2")

        class Deed:
            def __reduce__(self) -> Any:
                return Path.touch, (tmp_path / "deed",)

        torch.save(Deed(), tmp_path / "deed.pt")
        with (
            zipfile.ZipFile(tmp_path / "good.pt2") as good,
            zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad,
        ):
            for name in good.namelist():
                is_sample = "/data/sample_inputs/" in name
                bad.writestr(name, (tmp_path / "deed.pt").read_bytes() if is_sample else good.read(name))
        with pytest.raises(UnsupportedSourceError):
            convert(tmp_path / "bad.pt2")
        assert not (tmp_path / "deed").exists()
