"""The command line, in this process and over a backend in this process."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from commands import Done

import modelserve
from modelserve import Model, errors
from modelserve.bundle import Bundle, bundles_home
from modelserve.cli import main
from modelserve.session import Session
from modelserve.testing import models
from modelserve.testing.memory import MemoryCloud

X = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def linear(memory: MemoryCloud) -> Bundle:
    return models.linear()


@pytest.fixture
def wanted(linear: Bundle) -> np.ndarray:
    return Session(linear).run({"x": X})["y"]


def test_the_version_is_printed(run) -> None:
    assert run("--version") == Done(0, f"modelserve {modelserve.__version__}\n", "")


def test_help_names_every_command(run) -> None:
    done = run("--help")
    assert done.status == 0
    for command in ("convert", "inspect", "predict", "config", "cache", "doctor"):
        assert command in done.out


@pytest.mark.parametrize(
    "arguments", [["predict"], ["nonsense"], ["inspect", "x", "--nonsense"], ["config", "show", "x"]]
)
def test_a_command_that_is_not_understood_is_bad_input(run, arguments: list) -> None:
    done = run(*arguments)
    assert (done.status, done.out) == (2, "")
    assert "Traceback" not in done.err


# predict


def rows_of(path: Path) -> None:
    writers = {
        ".npy": lambda: np.save(path, X),
        ".npz": lambda: np.savez(path, x=X),
        ".csv": lambda: path.write_text("a,b,c,d\n" + "\n".join(",".join(map(str, row)) for row in X)),
        ".json": lambda: path.write_text(json.dumps(X.astype(str).astype(float).tolist())),
        ".jsonl": lambda: path.write_text("\n".join(json.dumps(row.astype(str).astype(float).tolist()) for row in X)),
    }
    writers[path.suffix]()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".json", ".jsonl"])
def test_predict_reads_every_kind_of_file(run, linear: Bundle, wanted: np.ndarray, suffix: str) -> None:
    rows_of(Path("rows" + suffix))
    done = run("predict", linear.path, "rows" + suffix, "-t", "memory")
    assert (done.status, done.err) == (0, "")
    answers = np.array([json.loads(line) for line in done.out.splitlines()], np.float32)
    np.testing.assert_array_equal(answers, wanted)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".json", ".jsonl"])
def test_predict_writes_every_kind_of_file(run, linear: Bundle, wanted: np.ndarray, suffix: str) -> None:
    np.save("rows.npy", X)
    path = Path("out" + suffix)
    assert run("predict", linear.path, "rows.npy", "-t", "memory", "-o", path) == Done(0, "", "")
    readers = {
        ".npy": lambda: np.load(path),
        ".npz": lambda: np.load(path)["y"],
        ".csv": lambda: [[float(cell) for cell in row] for row in list(csv.reader(path.read_text().splitlines()))[1:]],
        ".json": lambda: json.loads(path.read_text()),
        ".jsonl": lambda: [json.loads(line) for line in path.read_text().splitlines()],
    }
    np.testing.assert_array_equal(np.asarray(readers[suffix](), np.float32), wanted)
    assert sorted(entry.name for entry in Path().iterdir()) == sorted(["rows.npy", path.name])


def test_predict_leaves_no_deployment_of_a_bundle(run, memory: MemoryCloud, linear: Bundle) -> None:
    np.save("rows.npy", X)
    run("predict", linear.path, "rows.npy", "-t", "memory")
    assert memory.running == {}


def test_predict_asks_a_deployment_by_name_and_leaves_it(run, memory: MemoryCloud, linear: Bundle, wanted) -> None:
    Model(linear).serve("memory", name="mine")
    np.save("rows.npy", X)
    done = run("predict", "mine", "rows.npy", "-t", "memory", "--json")
    np.testing.assert_array_equal(np.array(json.loads(done.out), np.float32), wanted)
    assert list(memory.running) == ["mine"]


def test_predict_gives_named_outputs(run, memory: MemoryCloud) -> None:
    np.save("rows.npy", np.ones((2, 8), np.float32))
    bundle = models.mlp()
    done = run("predict", bundle.path, "rows.npy", "-t", "memory", "--outputs", "label, probabilities", "--json")
    content = json.loads(done.out)
    assert list(content) == ["label", "probabilities"]
    assert np.shape(content["probabilities"]) == (2, 3)
    run("predict", bundle.path, "rows.npy", "-t", "memory", "--outputs", "label,probabilities", "-o", "out.csv")
    header = Path("out.csv").read_text().splitlines()[0]
    assert header == "label,probabilities_0,probabilities_1,probabilities_2"


def test_predict_fits_named_columns_in_any_order(run, memory: MemoryCloud) -> None:
    Path("rows.jsonl").write_text('{"right": 1, "left": [1, 2, 3]}\n{"right": 2, "left": [0, 0, 0.5]}\n')
    done = run("predict", models.two_inputs().path, "rows.jsonl", "-t", "memory", "--json")
    assert json.loads(done.out) == [[2, 3, 4], [2, 2, 2.5]]


def test_predict_takes_text(run, memory: MemoryCloud) -> None:
    Path("rows.csv").write_text("word\ngrößer\n12\n", encoding="utf-8")
    assert run("predict", models.text().path, "rows.csv", "-t", "memory").out == '"größer"\n"12"\n'
    Path("rows.csv").write_text("word\n12\n")
    assert run("predict", models.text().path, "rows.csv", "-t", "memory").out == '"12"\n'


def test_predict_reads_standard_input(run, linear: Bundle, monkeypatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("[1, 2, 3, 4]\n\n[0, 0, 0, 0]\n"))
    assert len(run("predict", linear.path, "-", "-t", "memory").out.splitlines()) == 2


def test_nan_is_null_in_json(run, memory: MemoryCloud, linear: Bundle) -> None:
    np.save("rows.npy", np.full((1, 4), np.nan, np.float32))
    assert run("predict", linear.path, "rows.npy", "-t", "memory").out == "[null, null, null]\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "no rows"),
        ("a.csv", "a,b\n", "no rows"),
        ("a.csv", "a,b\n1,2\n3\n", "row 3 has 1 cells, expected 2"),
        ("a.csv", "a,a\n1,2\n", "names a column twice"),
        ("a.csv", "a,b\n1,2\n", "axis 1 must be 4"),
        ("a.csv", "a,b,c,d\n1,2,3,x\n", "'x' must be"),
        ("a.json", "{", "cannot be read as .json"),
        ("a.json", "3", "list of rows or an object"),
        ("a.json", "[]", "'x'"),
        ("a.json", "[[1, 2, 3, 4], [1]]", "same length"),
        ("a.json", '{"z": [1]}', "unknown: 'z'"),
        ("a.jsonl", "[1]\nno\n", "line 2 is not JSON"),
        ("a.jsonl", '{"a": 1}\n{"b": 1}\n', "row 2 has the keys b"),
        ("a.npy", "text", "cannot be read as .npy"),
        ("a.npz", "text", "cannot be read as .npz"),
        ("a.xlsx", "", "no known kind; known are .npy"),
    ],
)
def test_a_bad_file_is_one_clear_line_and_status_2(run, linear: Bundle, name: str, content: str, message: str) -> None:
    Path(name).write_text(content)
    done = run("predict", linear.path, name, "-t", "memory")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_pickled_arrays_are_refused(run, linear: Bundle) -> None:
    np.save("a.npy", np.array([{}], object), allow_pickle=True)
    done = run("predict", linear.path, "a.npy", "-t", "memory")
    assert done.status == 2
    assert "allow_pickle=False" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone", "rows.npy"], "no file or folder 'gone'"),
        (["gone", "rows.npy", "-t", "memory"], "no deployment 'gone'"),
        (["BUNDLE", "gone.npy"], "no file 'gone.npy'"),
        (["BUNDLE", "rows.npy", "-t", "nowhere"], "no target 'nowhere'"),
        (["BUNDLE", "rows.npy", "-o", "out.xlsx"], "no known kind"),
        (["BUNDLE", "rows.npy", "-o", "gone/out.csv"], "no folder"),
        (["BUNDLE", "rows.npy", "-o", "out.npy", "--outputs", "y,z"], "Write to .npz"),
        (["BUNDLE", "rows.npy", "-t", "memory", "--outputs", "z"], "no output 'z'"),
        (["BUNDLE", "rows.npy", "-t", "memory", "--timeout", "-1"], "timeout_s"),
    ],
)
def test_predict_refuses_what_it_cannot_do(run, linear: Bundle, arguments: list, message: str) -> None:
    np.save("rows.npy", X)
    done = run("predict", *[linear.path if part == "BUNDLE" else part for part in arguments])
    assert done.status == (1 if message.startswith("no deployment") else 2)
    assert message in done.err
    assert not list(Path().glob("*out*"))


def test_a_failure_of_the_place_has_status_1(run, memory: MemoryCloud, linear: Bundle) -> None:
    np.save("rows.npy", X)
    memory.fail_next("run", errors.OutOfMemoryError("No memory."))
    assert run("predict", linear.path, "rows.npy", "-t", "memory") == Done(1, "", "error: No memory.\n")


def test_debug_shows_the_traceback(memory: MemoryCloud) -> None:
    with pytest.raises(errors.ForeignBundleError):
        main(["inspect", "gone", "--debug"])


def test_a_fault_of_ours_says_so(run, monkeypatch) -> None:
    monkeypatch.setattr("modelserve.cli.doctor.run", lambda **_: 1 / 0)
    done = run("doctor")
    assert done.status == 1
    assert done.err.startswith("error: ZeroDivisionError: division by zero. This is a fault of modelserve")


# inspect, convert


def test_inspect_shows_the_bundle(run, memory: MemoryCloud) -> None:
    bundle = models.mlp()
    done = run("inspect", bundle.path)
    assert done.status == 0
    for part in (bundle.digest, "TinyClassifier", "float32[batch, 8]", "label", "what predict answers", "independent"):
        assert part in done.out
    assert json.loads(run("inspect", bundle.path, "--json").out)["digest"] == bundle.digest


def test_inspect_shows_reports_whatever_they_hold(run, tmp_path: Path, memory: MemoryCloud) -> None:
    import onnx

    made = models.linear()
    report = {
        "kind": "measurement",
        "rows": 12,
        "worst": 1.5e-7,
        "exact": True,
        "outputs": [{"name": "y", "error": 0.25}],
    }
    bundle = modelserve.bundle.write(
        onnx.load(made.model_path),
        signature=made.signature,
        origin=made.manifest.origin,
        lineage=made.manifest.lineage,
        example=made.example(),
        reports=[report],
        into=tmp_path / "reported",
    )
    out = run("inspect", bundle.path).out
    for part in ("measurement", "1.5e-07", "yes", "outputs", "0.25"):
        assert part in out


def test_optimize_makes_a_smaller_bundle_and_leaves_the_given_one(run, tmp_path: Path, memory: MemoryCloud) -> None:
    made = models.mlp(64, 128, 10)
    done = run("optimize", made.path, "-o", tmp_path / "small", "--quantize", "int8", "--json")
    assert json.loads(done.out)["size_bytes"] < made.size_bytes
    assert Bundle.open(tmp_path / "small").signature == made.signature
    assert Bundle.open(made.path).digest == made.digest


def test_optimize_searches_under_a_bound_and_draws_its_report(run, tmp_path: Path, memory: MemoryCloud) -> None:
    made = models.mlp(64, 128, 10)
    rows = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=rows)
    options = [
        "--max-drop",
        "0.2",
        "--data",
        tmp_path / "data.npz",
        "--budget",
        "3",
        "--plot",
        tmp_path / "report.html",
    ]
    assert run("optimize", made.path, "-o", tmp_path / "best", *options).status == 0
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert Bundle.open(tmp_path / "best").manifest.reports[-1]["kind"] == "optimization"


@pytest.mark.parametrize(
    "options",
    [[], ["--max-drop", "0.1"], ["--max-drop", "0.1", "--quantize", "int8"], ["--quantize", "int3"], ["--prune", "2"]],
)
def test_optimize_refuses_what_makes_no_sense_and_makes_nothing(
    run, tmp_path: Path, memory: MemoryCloud, options: list[str]
) -> None:
    assert run("optimize", models.mlp().path, "-o", tmp_path / "small", *options).status == 2
    assert not (tmp_path / "small").exists()


def test_inspect_shows_the_certificate_of_a_conversion(run, memory: MemoryCloud) -> None:
    from modelserve.convert import convert

    bundle = convert(models.mlp().model_path, np.ones((4, 8), np.float32))
    out = run("inspect", bundle.path).out
    for part in ("certificate", "faithful", "boundary", "probabilities", "label", "at most (95 %)"):
        assert part in out


@pytest.mark.parametrize("path", ["gone", "."])
def test_inspect_refuses_what_is_no_bundle(run, path: str) -> None:
    assert run("inspect", path).status == 2


def test_convert_gives_the_example_and_the_folder_on(run, linear: Bundle, monkeypatch) -> None:
    import modelserve.convert

    calls = []

    def convert(source, example=None, *, into=None):
        calls.append((source, example, into))
        return linear

    monkeypatch.setattr(modelserve.convert, "convert", convert, raising=False)
    Path("model.onnx").write_bytes(b"")
    Path("rows.csv").write_text("a,b\n1,2\n")
    done = run("convert", "model.onnx", "-o", "made", "--example", "rows.csv", "--json")
    assert done.status == 0
    assert json.loads(done.out)["digest"] == linear.digest
    ((source, example, into),) = calls
    assert (source, example.tolist(), into) == (Path("model.onnx"), [[1, 2]], Path("made"))


def test_convert_needs_a_source_that_exists(run) -> None:
    done = run("convert", "gone.onnx", "-o", "made")
    assert done.status == 2
    assert "no model file 'gone.onnx'" in done.err


# config


def test_config_show_names_every_value_and_its_origin(run, monkeypatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    monkeypatch.setenv("MODELSERVE_TARGETS__PROD__REGION", "eu-north-1")
    Path("modelserve.toml").write_text(
        'default_target = "prod"\n[targets.prod]\nbackend = "memory"\nregion = "eu-west-1"\ntoken = "${TOKEN}"\n'
    )
    done = run("config", "show", "--origin")
    assert done.status == 0
    assert "hunter2" not in done.out
    lines = {line.split()[0]: line for line in done.out.splitlines() if line.strip()}
    assert str(Path("modelserve.toml").absolute()) in done.out.splitlines()[0]
    assert lines["default_target"].split()[1:] == ["prod", "modelserve.toml"]
    assert lines["targets.prod.region"].split()[1:] == ["eu-north-1", "environment", "MODELSERVE_TARGETS__PROD__REGION"]
    assert lines["targets.prod.token"].split()[1:] == ["${TOKEN}", "modelserve.toml"]
    listed = json.loads(run("config", "show", "--json", "--target", "prod").out)
    assert {entry["key"] for entry in listed["settings"]} == {
        f"targets.prod.{key}" for key in ("backend", "region", "token")
    }
    assert "origin" not in run("config", "show").out


def test_config_show_without_a_file_shows_the_defaults(run) -> None:
    out = run("config", "show", "--origin").out
    assert "targets.local.backend" in out
    assert "default" in out


def test_config_show_reports_a_wrong_file(run) -> None:
    Path("modelserve.toml").write_text("[targets.a]\n")
    done = run("config", "show")
    assert done.status == 2
    assert "targets.a.backend" in done.err


def test_the_schema_in_the_docs_is_the_current_one(run) -> None:
    stored = Path(__file__).parents[2] / "docs" / "reference" / "modelserve.schema.json"
    assert run("config", "schema").out == stored.read_text(), "Run: modelserve config schema > " + stored.name


# cache


def test_cache_lists_and_clears_what_is_ours_and_nothing_else(run, linear: Bundle, tmp_path: Path) -> None:
    home = bundles_home().parent
    precious = [home / "notes.txt", home / "bundles" / "my-model" / "model.onnx", home / "other" / ("a" * 64) / "x"]
    for path in precious:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    (home / "bundles" / ("b" * 64)).symlink_to(outside)
    (home / "bundles" / ".making-x").mkdir()

    listed = json.loads(run("cache", "--json").out)
    assert {entry["name"] for entry in listed["entries"]} == {linear.digest, ".making-x"}
    assert "Linear from modelserve.testing" in run("cache", "show").out

    refused = run("cache", "clear")
    assert (refused.status, linear.path.exists()) == (2, True)
    assert "--yes" in refused.err
    assert json.loads(run("cache", "clear", "--yes", "--json").out)["removed"] == 2
    assert not linear.path.exists()
    assert all(path.read_text() == "precious" for path in (*precious, outside / "file"))
    assert "empty" in run("cache").out


def test_a_cache_that_is_a_link_is_left_alone(run, tmp_path: Path, monkeypatch) -> None:
    outside = tmp_path / "outside" / ("c" * 64)
    outside.mkdir(parents=True)
    bundles_home().parent.mkdir(parents=True, exist_ok=True)
    bundles_home().symlink_to(outside.parent)
    assert run("cache", "clear", "--yes").status == 0
    assert outside.exists()


# doctor


def test_doctor_says_what_is_usable(run) -> None:
    done = run("doctor")
    assert (done.status, done.err) == (0, "")
    for part in ("processors", "onnxruntime", "runs a model", "memory", "local"):
        assert part in done.out
    content = json.loads(run("doctor", "--json").out)
    assert content["healthy"] is True
    assert {finding["section"] for finding in content["findings"]} >= {
        "Machine",
        "modelserve",
        "Backends",
        "Frameworks",
    }


def test_doctor_says_what_to_install(run, monkeypatch) -> None:
    from modelserve.cli import packages

    installed = packages.version_of
    gone = {"torch", "skl2onnx"}
    monkeypatch.setattr(packages, "version_of", lambda name: None if name in gone else installed(name))
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    findings = {finding["name"]: finding for finding in json.loads(run("doctor", "--json").out)["findings"]}
    assert findings["PyTorch"]["remedy"] == 'pip install torch "modelserve[torch]"'
    assert findings["scikit-learn"]["remedy"] == 'pip install "modelserve[sklearn]"'
    assert "without skl2onnx" in findings["scikit-learn"]["found"]


def test_doctor_reports_what_is_broken(run, monkeypatch, tmp_path: Path) -> None:
    from modelserve.testing.plugin import install_plugin

    offers = {"bad": "modelserve_no_such_module:X", "lost": "json:tool_of_no_one"}
    monkeypatch.syspath_prepend(install_plugin(tmp_path / "bad", name="bad-plugin", backends=offers))
    Path("modelserve.toml").write_text("nonsense = 1")
    done = run("doctor")
    assert done.status == 1
    for name in ("bad", "lost", "configuration"):
        assert name in done.out.splitlines()[-1]
