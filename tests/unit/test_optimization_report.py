"""What `modelserve inspect` shows of an optimisation."""

import numpy as np
import pytest

from modelserve.cli.optimization_report import print_optimization
from modelserve.optimize import Auto, Prune, optimize
from modelserve.testing import models

ROWS = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)


def test_a_search_is_shown_with_what_was_asked_and_every_candidate(capsys: pytest.CaptureFixture[str]) -> None:
    made = optimize(models.mlp(), Auto(max_drop=0.1, data=ROWS, goal="size", budget_s=4))
    report = made.manifest.reports[-1]
    print_optimization(report)
    out = capsys.readouterr().out
    for item in report["candidates"]:
        assert item["name"] in out
        assert item["verdict"] in out
    for part in ("the best on size", "drops by at most 0.1", "240 for the verdict", report["data_digest"],
                 report["original"]["digest"], report["machine"]["processor"], "batch 32"):  # fmt: skip
        assert part in out


def test_an_explicit_plan_is_shown_as_it_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    made = optimize(models.mlp(8, 64, 3), Prune(0.5, structured=False), ROWS)
    print_optimization(made.manifest.reports[-1])
    out = capsys.readouterr().out
    assert "Prune(amount=0.5, structured=False" in out
    assert "compressed)" in out
