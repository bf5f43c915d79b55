"""The floors hold, and the check of them notices who climbs."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
FRAMEWORKS = {
    "catboost",
    "flax",
    "jax",
    "jax2onnx",
    "keras",
    "lightgbm",
    "sklearn",
    "tensorflow",
    "tf2onnx",
    "skl2onnx",
    "torch",
    "xgboost",
}


def contract(kind: str, part: str) -> dict:
    (found,) = [entry for entry in CONTRACTS if entry["type"] == kind and part in entry["name"]]
    return found


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(folder / "src"), str(folder / "backends" / "local")]
    program = (
        f"import sys; sys.path[:0] = {paths!r}\n"
        "from importlinter.cli import lint_imports\n"
        "sys.exit(lint_imports(no_cache=True))"
    )
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=100)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages alone, for a test to spoil."""
    folder = tmp_path / "copy"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignore)
    shutil.copytree(ROOT / "backends", folder / "backends", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_every_import_goes_down(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout


SPOILED = {
    "a floor is climbed": ("src/modelserve/tensors/spec.py", "import modelserve.model"),
    "neighbours meet": ("src/modelserve/wire.py", "import modelserve.session"),
    "a backend knows a converter": ("backends/local/modelserve_local/backend.py", "import modelserve.convert"),
    "the core names a backend": ("src/modelserve/model.py", "import modelserve_local"),
    "a framework is imported by the core": ("src/modelserve/model.py", "import torch"),
    "a room without a floor": ("src/modelserve/attic.py", "pass"),
}


@pytest.mark.parametrize(("path", "line"), SPOILED.values(), ids=SPOILED)
def test_who_climbs_is_noticed(copy: Path, path: str, line: str) -> None:
    with (copy / path).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout or "attic" in done.stdout + done.stderr


def test_the_floors_are_exhaustive() -> None:
    assert contract("layers", "floors")["exhaustive"] is True


def test_every_file_that_is_no_converter_is_kept_from_frameworks() -> None:
    """A new room or a new file of convert/ has to be told to the contract."""
    found = contract("forbidden", "framework")
    assert set(found["forbidden_modules"]) >= FRAMEWORKS
    rooms = {
        path.stem
        for path in (ROOT / "src" / "modelserve").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    converters = {path.stem for path in (ROOT / "src" / "modelserve" / "convert").glob("*.py")}
    modules = {f"modelserve.{room}" for room in rooms - {"convert", "__init__"}} | {
        f"modelserve.convert.{name}" for name in converters if not name.startswith(("from_", "__init__"))
    }
    assert sorted(modules - set(found["source_modules"])) == []


def test_every_backend_is_checked() -> None:
    backends = {path.name for path in (ROOT / "backends").glob("*/modelserve_*")}
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert backends <= set(root["importlinter"]["root_packages"])
    assert backends == set(contract("forbidden", "A backend knows")["source_modules"])
    assert {f"backends/{name.removeprefix('modelserve_')}/{name}" for name in backends} <= set(
        root["hatch"]["build"]["targets"]["wheel"]["packages"]
    )


def test_only_the_session_and_those_who_make_models_know_onnxruntime() -> None:
    importing = re.compile(r"^\s*(?:import|from) onnxruntime\b", re.MULTILINE)
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]
    found = {
        path.relative_to(ROOT / "src" / "modelserve").parts[0] for path in sources if importing.search(path.read_text())
    }
    assert found <= {"session.py", "convert", "optimize"}
