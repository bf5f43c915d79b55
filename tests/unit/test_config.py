"""What is configured, from where, and what is refused."""

from pathlib import Path

import pytest

from modelserve.config import Layer, load_config
from modelserve.errors import ConfigError, UnknownTargetError

PROD = """
default_target = "dev"

[targets.dev]
backend = "local"
workers = 2

[targets.prod]
backend = "sagemaker"
region = "eu-west-1"
role_arn = "${ROLE}"
scale = { minimum = 1, maximum = 4 }
tags = { team = "blue" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "modelserve.toml").write_text(PROD)
    return tmp_path


def written(folder: Path, text: str) -> Path:
    (folder / "modelserve.toml").write_text(text)
    return folder


def test_without_any_file_the_target_is_local(tmp_path: Path) -> None:
    config = load_config(tmp_path, {})
    assert config.file is None
    assert config.target_names == []
    target = config.target()
    assert (target.name, target.backend, target.options(), target.scale) == ("local", "local", {}, None)


def test_a_target_has_its_backend_its_scale_and_all_else_as_options(folder: Path) -> None:
    target = load_config(folder, {"ROLE": "arn:role"}).target("prod")
    assert target.backend == "sagemaker"
    assert target.scale == {"minimum": 1, "maximum": 4}
    assert target.options() == {"region": "eu-west-1", "role_arn": "arn:role", "tags": {"team": "blue"}}


def test_the_default_target_is_the_one_that_the_file_names(folder: Path) -> None:
    assert load_config(folder, {}).target().options() == {"workers": 2}


def test_the_file_is_found_from_a_folder_below(folder: Path) -> None:
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    assert load_config(below, {}).file == folder / "modelserve.toml"


def test_pyproject_is_read_where_it_has_the_table(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.modelserve]\ndefault_target = "x"\n[tool.modelserve.targets.x]\nbackend = "local"\n'
    )
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text('[project]\nname = "tool.modelserve is only mentioned"\n')
    config = load_config(inner, {})
    assert config.file == tmp_path / "pyproject.toml"
    assert config.target().name == "x"


def test_modelserve_toml_wins_over_pyproject_beside_it(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[tool.modelserve]\ndefault_target = "other"\n')
    assert load_config(folder, {}).default_target.value == "dev"


def test_each_layer_wins_over_those_below_and_keeps_its_origin(folder: Path) -> None:
    environment = {"ROLE": "r", "MODELSERVE_TARGETS__PROD__REGION": "eu-north-1", "MODELSERVE_TARGET": "prod"}
    config = load_config(folder, environment)
    assert config.default_target.origin == "environment MODELSERVE_TARGET"
    region = ("region",)

    target = config.target()
    assert target.settings[region].origin == "environment MODELSERVE_TARGETS__PROD__REGION"
    assert target.options()["region"] == "eu-north-1"

    target = config.target(command_line={"region": "cli"})
    assert (target.options()["region"], target.settings[region].origin) == ("cli", "command line")

    target = config.target(command_line={"region": "cli"}, code={"region": "code"})
    assert (target.options()["region"], target.settings[region].origin) == ("code", "code")

    origin = target.settings["role_arn",].origin
    assert origin == f"{folder / 'modelserve.toml'}: targets.prod.role_arn"


def test_one_value_of_a_table_is_overridden_alone(folder: Path) -> None:
    config = load_config(folder, {"MODELSERVE_TARGETS__PROD__SCALE__MAXIMUM": "8"})
    assert config.target("prod").scale == {"minimum": 1, "maximum": 8}
    assert config.target("prod").settings["scale", "maximum"].layer is Layer.ENVIRONMENT


def test_a_value_replaces_a_table_and_a_table_a_value(folder: Path) -> None:
    config = load_config(folder, {"MODELSERVE_TARGETS__PROD__SCALE": "3"})
    assert config.target("prod").scale == 3
    config = load_config(folder, {"MODELSERVE_TARGETS__DEV__WORKERS": "{a = 1}"})
    assert config.target("dev").options() == {"workers": {"a": 1}}


def test_an_environment_variable_matches_a_target_with_a_dash(tmp_path: Path) -> None:
    written(tmp_path, '[targets.My-Prod]\nbackend = "local"\n')
    config = load_config(tmp_path, {"MODELSERVE_TARGETS__MY_PROD__WORKERS": "3"})
    assert config.target("My-Prod").options() == {"workers": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('"3"', "3"),
        ("eu-west-1", "eu-west-1"),
        ("012345678901", "012345678901"),
        ("2024-01-01", "2024-01-01"),
        ("", ""),
        ("1\nother = 2", "1\nother = 2"),
    ],
)
def test_an_environment_value_is_a_toml_value_or_text(tmp_path: Path, text: str, value: object) -> None:
    environment = {"MODELSERVE_TARGETS__A__BACKEND": "local", "MODELSERVE_TARGETS__A__X": text}
    assert load_config(tmp_path, environment).target("a").options() == {"x": value}


def test_other_variables_of_modelserve_are_left_alone(tmp_path: Path) -> None:
    assert load_config(tmp_path, {"MODELSERVE_HOME": "/x", "MODELSERVE_TARGET": ""}).settings == {}


@pytest.mark.parametrize(
    "variable", ["MODELSERVE_TARGETS__PROD", "MODELSERVE_TARGETS__PROD__", "MODELSERVE_TARGETS____X"]
)
def test_a_variable_that_names_no_key_is_refused(tmp_path: Path, variable: str) -> None:
    with pytest.raises(ConfigError, match=variable):
        load_config(tmp_path, {variable: "x"})


def test_a_name_that_is_no_target_but_a_backend_means_the_backend(folder: Path) -> None:
    target = load_config(folder, {}).target("memory", backends=["local", "memory"])
    assert (target.backend, target.options()) == ("memory", {})


def test_an_unknown_target_is_answered_with_those_that_exist(folder: Path) -> None:
    with pytest.raises(UnknownTargetError, match=r"no target 'prdo'.*'dev', 'prod'.*'local'.*Did you mean 'prod'"):
        load_config(folder, {}).target("prdo", backends=["local"])


def test_the_default_target_must_exist_when_it_is_used(tmp_path: Path) -> None:
    with pytest.raises(UnknownTargetError, match="no target 'gone'"):
        load_config(written(tmp_path, 'default_target = "gone"'), {}).target(backends=["local"])


def test_a_missing_variable_is_named_with_the_key(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"targets\.prod\.role_arn .*'ROLE', which is not set"):
        load_config(folder, {}).target("prod").options()


def test_a_target_that_is_not_used_needs_no_variables(folder: Path) -> None:
    assert load_config(folder, {}).target("dev").options() == {"workers": 2}


def test_references_stand_within_text_and_lists_and_can_be_escaped(tmp_path: Path) -> None:
    written(tmp_path, '[targets.a]\nbackend = "local"\nx = ["a-${N}-b", "$${N}", "$5"]\n')
    assert load_config(tmp_path, {"N": "1"}).target("a").options() == {"x": ["a-1-b", "${N}", "$5"]}


def test_a_value_is_not_expanded_twice(tmp_path: Path) -> None:
    written(tmp_path, '[targets.a]\nbackend = "local"\nx = "${N}"\n')
    assert load_config(tmp_path, {"N": "${M}"}).target("a").options() == {"x": "${M}"}


def test_only_the_file_holds_references(tmp_path: Path) -> None:
    environment = {"MODELSERVE_TARGETS__A__BACKEND": "local", "MODELSERVE_TARGETS__A__X": "${N}", "N": "1"}
    target = load_config(tmp_path, environment).target("a", code={"y": "${N}"}, command_line={"z": "${N}"})
    assert target.options() == {"x": "${N}", "y": "${N}", "z": "${N}"}


def test_a_reference_without_a_name_is_refused(tmp_path: Path) -> None:
    written(tmp_path, '[targets.a]\nbackend = "local"\nx = "${1-2}"\n')
    with pytest.raises(ConfigError, match="names no variable"):
        load_config(tmp_path, {}).target("a").options()


def test_no_secret_is_ever_shown(tmp_path: Path) -> None:
    written(tmp_path, '[targets.a]\nbackend = "local"\ntoken = "${TOKEN}"\napi_key = "hunter2"\n')
    environment = {"TOKEN": "hunter2", "MODELSERVE_TARGETS__A__PASSWORD": "hunter2"}
    config = load_config(tmp_path, environment)
    target = config.target("a")
    shown = repr(config) + repr(target) + str([setting.shown for setting in target.settings.values()])
    assert "hunter2" not in shown
    assert "${TOKEN}" in shown
    assert target.options() == {"token": "hunter2", "api_key": "hunter2", "password": "hunter2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defualt_target = 'x'", r"defualt_target .*no key 'defualt_target'; the keys are default_target, targets"),
        ("[targets.a]\nworkers = 2", r"targets\.a\.backend .*missing"),
        ("[targets.a]\nbackend = 3", r"targets\.a\.backend .*valid string"),
        ("[targets.a]\nbackend = ''", r"targets\.a\.backend"),
        ("targets = 3", r"targets .*valid dictionary"),
        ("[targets]\na = 3", r"targets\.a "),
        ("[targets.a]\nbackend = 'x'\nscale = 'two'", r"targets\.a\.scale .*number of replicas"),
        ("[targets.a]\nbackend = 'x'\nscale = 0", r"targets\.a\.scale .*number of replicas"),
        (
            "[targets.a]\nbackend = 'x'\nscale = {minimum = 'a', maximum = 2}",
            r"targets\.a\.scale\.minimum .*valid integer",
        ),
        (
            "[targets.a]\nbackend = 'x'\nscale = {maximum = 2, tarlet = 2}",
            r"no key 'tarlet'; the keys are minimum, maximum",
        ),
        ("[targets.a", "cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused_naming_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(written(tmp_path, text), {})
    assert "modelserve.toml" in str(caught.value)


def test_a_wrong_value_from_the_environment_is_refused_naming_the_variable(folder: Path) -> None:
    with pytest.raises(ConfigError, match="MODELSERVE_TARGETS__PROD__SCALE"):
        load_config(folder, {"MODELSERVE_TARGETS__PROD__SCALE": "two"})
