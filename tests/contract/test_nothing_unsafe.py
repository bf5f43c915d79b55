"""No pickle in a bundle or from the network; nothing committed knows the machine that it was written on."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Who may load pickled objects, and why.
MAY_PICKLE = {
    "tests/benchmarks/bench_executor.py": "joblib is one of those that it is compared with",
    "src/modelserve/session.py": "a live callable, over its own application's private channel",
    "src/modelserve/convert/live.py": "makes such a callable",
    "src/modelserve/testing/models.py": "makes such a callable",
    "src/modelserve/testing/pools.py": "makes such callables",
    "tests/faults/test_worker_deaths.py": "makes such a callable",
    "tests/property/test_joined_answers.py": "makes such a callable",
    "tests/unit/test_bundle_store.py": "an example with pickled objects, to see it refused",
    "tests/unit/test_cli.py": "an input with pickled objects, to see it refused",
    "tests/unit/test_errors.py": "its own errors, within one process",
    "tests/unit/test_session.py": "makes such a callable",
}
PICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def committed(*patterns: str) -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT, capture_output=True, timeout=30, check=True,
    )  # fmt: skip
    return [path for name in done.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def unsafe(tree: ast.AST) -> Iterator[str]:
    """What in a module can load pickled objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in PICKLERS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PICKLERS:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            yield from _unsafe_call(node)


def _unsafe_call(call: ast.Call) -> Iterator[str]:
    said = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
    name = ast.unparse(call.func)
    if said.get("allow_pickle", False) is not False:
        yield f"{name}(allow_pickle=...)"
    if name == "torch.load" and said.get("weights_only") is not True:
        yield "torch.load without weights_only=True"
    if name in {"np.load", "numpy.load"} and said.get("allow_pickle") is not False:
        yield "numpy.load without allow_pickle=False"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "import cloudpickle as c", "import joblib", "x(allow_pickle=True)",
        "torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p)", "np.load(p, allow_pickle=flag)",
    ],
)  # fmt: skip
def test_the_check_sees_what_is_unsafe(code: str) -> None:
    assert list(unsafe(ast.parse(code)))


@pytest.mark.parametrize(
    "code", ["np.load(p, allow_pickle=False)", "torch.load(p, weights_only=True)", "json.loads(t)"]
)
def test_the_check_lets_the_rest_be(code: str) -> None:
    assert not list(unsafe(ast.parse(code)))


def test_nothing_loads_pickled_objects_but_what_is_listed() -> None:
    found = {str(path.relative_to(ROOT)): list(unsafe(ast.parse(path.read_text()))) for path in committed("*.py")}
    assert {name: what for name, what in found.items() if what and name not in MAY_PICKLE} == {}


def test_no_exception_is_listed_in_vain() -> None:
    for name in MAY_PICKLE:
        assert list(unsafe(ast.parse((ROOT / name).read_text()))), f"{name} loads nothing pickled any more"


#: In parts, so that this file does not hold what it looks for.
MACHINES = re.compile(
    "|".join(
        [
            r"(?<![\w./-])/" + r"(?:work|root|home|opt(?!/ml\b))/\w",  # /opt/ml is every SageMaker's
            "files" + r"\.pythonhosted\.org",
            r"(?<![\w.])" + "pypi" + r"\.org/simple",
            "index" + "-url",
            "find" + "-links",
            r"https?://[^\s\"')]*/simple/?\b",
        ]
    )
)


@pytest.mark.parametrize("line", ["see /" + "work/main", "--index" + "-url=x", "https://mirror.example/" + "simple/"])
def test_the_check_sees_a_machine(line: str) -> None:
    assert MACHINES.search(line)


def test_nothing_committed_names_a_registry_or_a_path_of_one_machine() -> None:
    found = []
    for path in committed():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        lines = enumerate(text.splitlines(), 1)
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()}" for number, line in lines if MACHINES.search(line)
        ]
    assert found == []
