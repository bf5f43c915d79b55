"""`modelserve status, scale, update, list, delete` against a server that runs: by its address, and as a target."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from modelserve import Model, attach
from modelserve.bundle import Bundle
from modelserve.cli import main
from modelserve.errors import DeadlineError
from modelserve.session import Session
from modelserve.testing import models
from modelserve.testing.serving import ServerThread, bundle_folder

ROWS = np.ones((3, 4), np.float32)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, object, str]]:
    def run(*arguments: object) -> tuple[int, object, str]:
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments), "--json"])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), json.loads(printed.out) if printed.out else None, printed.err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bundle_folder(tmp_path / "models", digits=models.linear())


@pytest.fixture
def server(folder: Path) -> Iterator[ServerThread]:
    with ServerThread(models=folder, workers=1) as server:
        yield server


def answers(bundle: Bundle) -> np.ndarray:
    return Session(bundle).run({"x": ROWS})["y"]


def test_a_server_is_asked_scaled_and_updated_by_its_address(run, server: ServerThread, folder: Path) -> None:
    status, found, _ = run("status", server.url)
    assert (status, found["name"], found["state"]) == (0, "digits", "ready")
    assert len(found["replicas"]) == 1

    status, scaled, _ = run("scale", f"{server.url}/v2/models/digits", 2)
    assert (status, scaled["scale"]) == (0, {"minimum": 2, "maximum": 2})
    assert len(run("status", server.url)[1]["replicas"]) == 2

    status, ranged, _ = run("scale", server.url, "--minimum", 0, "--maximum", 2, "--target-inflight", 3)
    assert (status, ranged["scale"]) == (0, {"minimum": 0, "maximum": 2, "target_inflight": 3.0})
    assert run("logs", server.url) == (0, [], "")

    other = models.linear(seed=1)
    status, updated, _ = run("update", server.url, other.path, "--set", f"folder={folder}")
    assert (status, updated["digest"]) == (0, other.digest)
    with attach(server.url) as deployment:
        np.testing.assert_array_equal(deployment.predict(ROWS), answers(other))


def test_a_server_as_a_target_takes_every_verb(run, server: ServerThread, folder: Path) -> None:
    Path("modelserve.toml").write_text(f'[targets.here]\nbackend = "http"\nurl = "{server.url}"\nfolder = "{folder}"\n')
    bundle = models.linear(seed=2)
    status, made, error = run("deploy", bundle.path, "-t", "here", "--name", "churn")
    assert (status, made["name"], made["digest"]) == (0, "churn", bundle.digest), error
    assert sorted(entry["name"] for entry in run("list", "-t", "here")[1]) == ["churn", "digits"]
    assert run("delete", "churn", "-t", "here", "--yes")[0] == 0
    assert [entry["name"] for entry in run("list", "-t", "here")[1]] == ["digits"]
    assert not (folder / "churn").exists()


def test_what_a_server_cannot_do_is_said_with_the_way_out(run, server: ServerThread) -> None:
    status, _, error = run("update", server.url, models.linear(seed=1).path)
    assert status == 1
    assert "folder=" in error
    status, _, error = run("status", f"{server.url}/v2/models/nobody")
    assert status == 1
    assert "nobody" in error
    status, _, error = run("status", "http://127.0.0.1:9")
    assert status == 1
    assert error.count("\n") == 1


def test_a_model_that_is_not_loaded_in_time_leaves_what_was_there(server: ServerThread, folder: Path) -> None:
    before = Bundle.open(folder / "digits").digest
    with pytest.raises(DeadlineError):
        Model(models.linear(seed=3)).serve("http", name="digits", url=server.url, folder=folder, timeout_s=0.0001)
    assert Bundle.open(folder / "digits").digest == before
    assert [path.name for path in folder.iterdir()] == ["digits"]


def test_every_command_of_the_how_to_does_what_it_says(server: ServerThread, folder: Path, capsys) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "deploy-from-the-command-line.md").read_text()
    page = page.replace("127.0.0.1:8000", server.address)
    shutil.copytree(models.linear().path, "bundle")
    shutil.copytree(models.linear(seed=1).path, "new-bundle")
    Path("models").symlink_to(folder)
    Path("modelserve.toml").write_text(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0])
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if not line.endswith("&")]
    assert len(lines) == 11
    for line in lines:
        if "/v2/models/digits" in line and not (folder / "digits").exists():
            # The page's first half ends with `delete`, its second begins with a server that has the model.
            shutil.copytree(models.linear().path, folder / "digits")
            server.call(server.server.repository.load("digits"))
        with pytest.raises(SystemExit) as ended:
            main(line.split()[1:])
        assert not ended.value.code, (line, capsys.readouterr().err)
