"""`modelserve serve` and `modelserve keys`, and that their pages say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from modelserve.cli import serve as serving
from modelserve.errors import ConfigError
from modelserve.runtime.server.access.keys import KeyFile
from modelserve.runtime.server.problems import STATUS
from modelserve.runtime.server.settings import ServerSettings, read_settings
from modelserve.testing import models

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "server.md").read_text()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServerSettings]:
    """The settings with which a server would have been started."""
    found: list[ServerSettings] = []
    monkeypatch.setattr(serving, "run_process", lambda settings, **_: found.append(settings) or 0)
    return found


def test_a_bundle_or_a_folder_of_them_is_served(run, served: list[ServerSettings], tmp_path: Path) -> None:
    bundle = models.linear().path
    assert run("serve", bundle, "--port", "9", "--name", "digits")[0] == 0
    assert run("serve", tmp_path, "--set", "memory-mib=64", "--set", "on_demand=true")[0] == 0
    one, many = served
    assert (one.model, one.models, one.port, one.name) == (bundle, None, 9, "digits")
    assert (many.model, many.models, many.memory_mib, many.on_demand) == (None, tmp_path, 64, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere/at/all"], "not a folder"),
        (["--set", "colour=red"], "one of model"),
        (["--set", "port"], "NAME=VALUE"),
        (["--set", "port=x"], "--port"),
    ],
)
def test_what_makes_no_sense_is_bad_input(
    run, served: list[ServerSettings], arguments: list[str], message: str
) -> None:
    status, _, error = run("serve", *arguments)
    assert status == 2
    assert message in error
    assert served == []


def test_the_command_line_wins_over_the_environment() -> None:
    environment = {"MODELSERVE_SERVER_PORT": "1", "MODELSERVE_SERVER_NAME": "a"}
    settings = read_settings({"port": 2, "name": None}, environment)
    assert (settings.port, settings.name) == (2, "a")
    with pytest.raises(ConfigError, match="MODELSERVE_SERVER_COLOR"):
        read_settings({}, {"MODELSERVE_SERVER_COLOR": "red"})


def test_a_key_is_shown_once_and_opens_until_it_is_revoked(run, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    status, made, _ = run("keys", "create", "my-app", "--model", "digits", "--days", 90, "--file", file)
    assert status == 0
    key = made.strip()
    caller = KeyFile(file).recognise(key)
    assert caller is not None
    assert caller.models == {"digits"}
    _, listed, _ = run("keys", "list", "--json", "--file", file)
    (shown,) = json.loads(listed)
    assert shown["name"] == "my-app"
    assert key.split("_", 2)[2] not in listed
    _, table, _ = run("keys", "list", "--file", file)
    assert "digits" in table
    assert run("keys", "revoke", shown["id"], "--file", file)[0] == 0
    assert KeyFile(file).recognise(key) is None
    assert run("keys", "revoke", shown["id"], "--file", file)[0] == 2


def test_every_setting_is_described() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \|", PAGE.partition("## Settings")[2].partition("\n## ")[0], re.MULTILINE)
    described = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert described == set(ServerSettings.model_fields)
    assert all(field.description for field in ServerSettings.model_fields.values())


def test_every_status_is_described() -> None:
    section = PAGE.partition("## Failures")[2].partition("\n## ")[0]
    assert all(str(status) in section for status in set(STATUS.values()) - {500})
