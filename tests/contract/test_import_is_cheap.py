"""`import modelserve` loads nothing heavy, and nothing of its own before it is used."""

import json
import subprocess
import sys

#: What `import modelserve` itself may load of modelserve.
ALLOWED = {"modelserve"}
#: Never loaded by the import, nor by looking at what the package offers.
HEAVY = {
    "numpy", "onnx", "onnxruntime", "pydantic", "typer", "click", "rich", "cloudpickle", "platformdirs",
    "torch", "tensorflow", "keras", "sklearn", "skl2onnx", "pandas", "xgboost", "lightgbm", "catboost", "jax",
    "asyncio", "multiprocessing", "concurrent.futures", "logging", "importlib.metadata", "hypothesis", "pytest",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    tell = "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    program = f"import sys; before = set(sys.modules); {code}; {tell}"
    # Isolated and without site, so that nothing else that is installed is loaded first; the path is given by hand.
    path = f"import sys; sys.path[:] = {sys.path!r}; "
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", path + program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_importing_loads_only_the_package_itself() -> None:
    loaded = modules_after("import modelserve")
    assert {name for name in loaded if name.partition(".")[0].startswith("modelserve")} == ALLOWED
    assert loaded & HEAVY == set()


def test_looking_around_loads_nothing_heavy() -> None:
    assert (
        modules_after("import modelserve; dir(modelserve); modelserve.errors; modelserve.ModelServeError") & HEAVY
        == set()
    )


def test_serving_needs_no_framework_to_be_importable() -> None:
    loaded = modules_after("import modelserve; modelserve.Model; modelserve.attach")
    assert loaded & {"onnx", "onnxruntime", "pydantic", "rich", "typer", "torch", "sklearn", "pandas"} == set()


def test_a_worker_loads_nothing_that_only_the_application_needs() -> None:
    # Each worker that is not forked would hold it in memory of its own.
    only_the_applications = HEAVY - {"numpy", "logging"} | {"ssl", "email", "modelserve.runtime.pool"}
    assert modules_after("import modelserve.runtime.worker") & only_the_applications == set()


def test_the_command_line_starts_without_what_its_commands_need() -> None:
    heavy = HEAVY - {"typer", "rich", "click", "logging", "importlib.metadata"}
    assert modules_after("import modelserve.cli.app") & heavy == set()


def test_the_promise_is_kept() -> None:
    import modelserve

    for name in modelserve.__all__:
        assert getattr(modelserve, name) is not None
        assert name in dir(modelserve)
    assert modelserve.__version__
    assert not hasattr(modelserve, "Modle")
