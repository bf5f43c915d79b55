"""The reference pages say what the code does: each example loads, each command and option is there."""

import re
from pathlib import Path

import pytest

from modelserve.config import load_config
from modelserve.config.schema import ScaleTable, TargetTable

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def blocks(page: str, language: str) -> list[str]:
    text = (REFERENCE / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", blocks("configuration.md", "toml"))
def test_every_example_of_the_configuration_loads(block: str, tmp_path: Path) -> None:
    name = "pyproject.toml" if "[tool.modelserve]" in block else "modelserve.toml"
    (tmp_path / name).write_text(block)
    config = load_config(tmp_path, {"SAGEMAKER_ROLE": "role"})
    assert config.file == tmp_path / name
    for target in config.target_names:
        assert config.target(target).options() is not None
    assert config.target().backend == "local"


def test_every_key_is_described() -> None:
    text = (REFERENCE / "configuration.md").read_text()
    for key in (*TargetTable.model_fields, *ScaleTable.model_fields):
        assert f"{key}`" in text


def test_every_command_and_option_is_described() -> None:
    import typer

    from modelserve.cli.app import app

    text = (REFERENCE / "cli.md").read_text()
    commands = typer.main.get_command(app).commands
    for name, command in commands.items():
        assert f"## {name}" in text
        section = text.partition(f"## {name}\n")[2].partition("\n## ")[0] + text.partition("\n## ")[0]
        for inner, part in {"": command, **getattr(command, "commands", {})}.items():
            assert inner in section
            for parameter in part.params:
                options = [option for option in getattr(parameter, "opts", []) if option.startswith("-")]
                assert all(f"{option}" in section for option in options), (name, options)


def test_every_console_example_is_understood() -> None:
    import typer

    from modelserve.cli.app import app

    group = typer.main.get_command(app)
    lines = [line for block in blocks("cli.md", "console") for line in block.splitlines()]
    assert lines
    for line in lines:
        words = line.partition(" < ")[0].split()[1:]
        context = group.make_context("modelserve", list(words), resilient_parsing=False)
        _parse(group, context)


def _parse(group, context) -> None:
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    inner = command.make_context(name, rest, parent=context)
    if hasattr(command, "commands") and inner._protected_args:
        _parse(command, inner)
