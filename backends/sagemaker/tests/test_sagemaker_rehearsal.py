"""`modelserve rehearse`: the whole life on the stand-in by the user's own configuration, and the report of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modelserve.cli import main
from modelserve.testing import models

GOOD = (
    '[targets.prod]\nbackend = "sagemaker"\nregion = "eu-west-1"\nworkers = 1\n'
    'role_arn = "arn:aws:iam::999999999999:role/modelserve"\n'
)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    try:
        main(["rehearse", "prod", *arguments])
    except SystemExit as ended:
        return int(ended.code or 0), capsys.readouterr().out
    return 0, capsys.readouterr().out


@pytest.mark.timeout(240)
@pytest.mark.long
def test_a_life_is_lived_and_told_in_the_terminal_as_json_and_as_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    Path("modelserve.toml").write_text(GOOD)
    status, printed = run(capsys, str(models.mlp().path), "--html", "report.html", "--json")
    report = json.loads(printed)
    assert (status, report["passed"], report["counts"]["refused"]) == (0, True, 0), printed
    told = {finding["name"]: finding for stage in report["stages"] for finding in stage["findings"]}
    for name in ("parity", "up and down", "under load", "a replica dies", "leftovers", "attach", "logs"):
        assert told[name]["verdict"] == "passed"
    assert "label, probabilities" in told["parity"]["text"]
    assert "none failed" in told["up and down"]["text"]
    assert "none failed" in told["under load"]["text"]
    page = Path("report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "would refuse nothing" in page
    assert "<script" not in page
    assert "http" not in page.partition("<main>")[0], "It is one file, and asks for no other."


@pytest.mark.long
def test_what_the_real_place_would_refuse_is_told_with_an_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    Path("modelserve.toml").write_text(GOOD + 'instance_type = "ml.g5.xlarge"\nkms_key = "<no key>"\n')
    status, printed = run(capsys, "--html", "report.html")
    assert status == 1
    assert "The real place would refuse this" in printed
    assert "ml.c7i.large" in printed
    page = Path("report.html").read_text()
    assert "&lt;no key&gt;" in page
    assert "<no key>" not in page


@pytest.mark.parametrize("package", ["moto", "uvicorn"])
def test_what_is_not_installed_is_answered_with_the_remedy(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from modelserve_sagemaker import SageMakerBackend\n"
        "SageMakerBackend({}).rehearsal()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert f"MissingExtraError: A rehearsal needs the package {package!r}" in done.stderr
    assert 'pip install "modelserve[rehearsal]"' in done.stderr
