"""A whole data set through a deployment: the answers, the rows without one, and going on where a run was stopped."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import modelserve as ms
from modelserve import Deployment, errors
from modelserve.dataset import Progress, batch_size, folder
from modelserve.testing import models
from modelserve.testing.memory import MemoryCloud

ROWS = 500
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
NAMES = ["f0", "f1", "f2", "f3"]


def table(x: np.ndarray = X) -> pa.Table:
    return pa.table({"id": np.arange(len(x)), **{name: x[:, at] for at, name in enumerate(NAMES)}})


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of 64 rows of four floats, so that a few hundred rows make several."""
    monkeypatch.setattr(batch_size, "PART_BYTES", 64 * 16)


@pytest.fixture
def deployment(memory: MemoryCloud) -> Iterator[Deployment]:
    with ms.Model(models.linear()).serve("memory", name="linear") as found:
        yield found


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    pq.write_table(table(), tmp_path / "orders.parquet", row_group_size=90)
    return tmp_path / "orders.parquet"


def run(deployment: Deployment, source: Any, into: str = "out", **options: Any) -> Any:
    return deployment.predict_dataset(source, into, **{"engine": "local", "keep": ["id"], "batch_rows": 16, **options})


def content(into: str | Path = "out") -> dict[str, str]:
    """What a folder holds, by name, without what tells of time."""
    files = [path for path in Path(into).iterdir() if path.name != folder.REPORT]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_answers_are_those_of_predict_in_the_order_of_the_source(deployment, orders, small_parts) -> None:
    report = run(deployment, orders)
    found = pq.read_table("out")
    assert found["id"].to_pylist() == list(range(ROWS))
    np.testing.assert_allclose(np.stack(found["y"].to_pylist()), deployment.predict(X), rtol=1e-6)
    assert (report.rows, report.failures, report.parts, report.batch_rows, report.part_rows) == (ROWS, 0, 8, 16, 64)
    assert sorted(report.stages) == ["convert", "encode", "gather", "predict", "read", "send", "write"]
    assert json.loads(Path("out/_report.json").read_text())["rows"] == ROWS


def test_without_a_number_the_rows_of_a_batch_are_measured_and_written_down(deployment, orders) -> None:
    report = run(deployment, orders, batch_rows=None)
    head = json.loads(Path("out/_manifest.jsonl").read_text().splitlines()[0])
    assert head["batch_rows"] == report.batch_rows > 1
    assert head["part_rows"] == report.part_rows >= report.batch_rows
    assert pq.read_table("out").num_rows == ROWS


def _read_lines(path: Path) -> np.ndarray:
    return np.array([json.loads(line)["y"] for line in path.read_text().splitlines()])


def _read_csv(path: Path) -> np.ndarray:
    found = pa.csv.read_csv(path)
    return np.stack([found[f"y_{at}"].to_numpy() for at in range(3)], axis=1)


@pytest.mark.parametrize(
    ("form", "read", "keep"),
    [("jsonl", _read_lines, ["id"]), ("csv", _read_csv, ["id"]), ("npy", np.load, [])],
)
def test_every_format_holds_the_same_answers(form: str, read: Callable, keep: list[str], deployment, orders) -> None:
    run(deployment, orders, format=form, keep=keep, columns=NAMES)
    np.testing.assert_allclose(read(Path(f"out/part-00000.{form}")), deployment.predict(X), rtol=1e-6)


def test_named_outputs_are_columns(memory, orders) -> None:
    x = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
    with ms.Model(models.mlp()).serve("memory") as deployment:
        deployment.predict_dataset({"x": x}, "out", engine="local", outputs=["label", "probabilities"])
        wanted = deployment.predict(x, outputs=["label", "probabilities"])
    found = pq.read_table("out")
    np.testing.assert_array_equal(found["label"].to_numpy(), wanted["label"])
    np.testing.assert_allclose(np.stack(found["probabilities"].to_pylist()), wanted["probabilities"], rtol=1e-6)


@pytest.mark.parametrize(
    "source",
    [
        lambda: table().to_pandas(),
        lambda: iter(table().to_pylist()),
        lambda: pa.RecordBatchReader.from_batches(table().schema, table().to_batches(max_chunksize=33)),
    ],
)
def test_frames_iterators_and_readers_give_the_same_bytes_as_files(source, deployment, orders, small_parts) -> None:
    run(deployment, orders, "of-file")
    run(deployment, source(), "of-object", cast=True)
    of_file = {name: digest for name, digest in content("of-file").items() if name.startswith("part")}
    of_object = {name: digest for name, digest in content("of-object").items() if name.startswith("part")}
    assert len(of_file) == 8
    assert of_object == of_file


def test_a_run_that_is_done_is_not_done_again(deployment, orders, memory, small_parts) -> None:
    run(deployment, orders)
    before = content()
    memory.fail_next("run", errors.ModelRunError("It was asked again."))
    report = run(deployment, orders)
    assert (report.resumed_rows, report.rows) == (ROWS, ROWS)
    assert content() == before


class StoppedError(Exception):
    """The run is stopped by the caller's own code."""


def stop_after(rows: int) -> Callable[[Progress], None]:
    def look(progress: Progress) -> None:
        if progress.rows >= rows:
            raise StoppedError

    return look


@pytest.mark.parametrize("kind", ["files", "iterator"])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    kind: str, deployment, orders, small_parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelserve.dataset.run._TELL_EVERY_S", 0.0)

    def source() -> Any:
        return orders if kind == "files" else iter(table().to_batches(max_chunksize=50))

    run(deployment, source(), "whole")
    with pytest.raises(StoppedError):
        run(deployment, source(), progress=stop_after(200))
    parts = len([name for name in content() if name.startswith("part")])
    assert 0 < parts < 8
    report = run(deployment, source())
    assert report.resumed_rows == parts * 64
    assert content() == content("whole")


def test_a_part_that_was_damaged_is_made_again(deployment, orders, small_parts) -> None:
    run(deployment, orders)
    before = content()
    Path("out/part-00003.parquet").write_bytes(b"damaged")
    Path("out/part-00005.parquet").unlink()
    assert run(deployment, orders).resumed_rows == ROWS - 2 * 64
    assert content() == before


def test_a_line_of_the_manifest_that_was_cut_short_does_not_count(deployment, orders, small_parts) -> None:
    run(deployment, orders)
    before = content()
    path = Path("out/_manifest.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    Path("out/.part-00003.parquet.tmp").write_bytes(b"half")
    assert run(deployment, orders).resumed_rows == 3 * 64
    assert content() == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"columns": ["f1", "f0", "f2", "f3"]}, "columns"),
        ({"keep": []}, "keep"),
        ({"format": "jsonl"}, "format: was 'parquet', is 'jsonl'"),
        ({"batch_rows": 8}, "batch_rows: was 16, is 8"),
    ],
)
def test_a_changed_option_is_noticed_and_refused(changed: dict[str, Any], said: str, deployment, orders) -> None:
    run(deployment, orders, columns=NAMES)
    before = content()
    with pytest.raises(errors.ResumeError, match=said):
        run(deployment, orders, **{"columns": NAMES, **changed})
    assert content() == before


def test_a_changed_source_or_model_is_noticed_and_refused_until_asked_to_restart(
    deployment, orders, small_parts
) -> None:
    run(deployment, orders)
    pq.write_table(table(X[:200]), orders)
    with pytest.raises(errors.ResumeError, match=r"source.*size"):
        run(deployment, orders)
    assert run(deployment, orders, restart=True).rows == 200
    assert len([name for name in content() if name.startswith("part")]) == 4
    deployment.update(ms.Model(models.linear(seed=7)))
    with pytest.raises(errors.ResumeError, match="model: was"):
        run(deployment, orders)
    run(deployment, orders, restart=True)
    np.testing.assert_allclose(np.stack(pq.read_table("out")["y"].to_pylist()), deployment.predict(X[:200]), rtol=1e-6)


def test_a_stream_that_gives_other_rows_is_noticed(deployment, small_parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelserve.dataset.run._TELL_EVERY_S", 0.0)
    with pytest.raises(StoppedError):
        run(deployment, iter(table().to_batches()), progress=stop_after(100))
    with pytest.raises(errors.ResumeError, match="not those of the run before"):
        run(deployment, iter(table(X + 1).to_batches()))


def test_a_model_that_is_updated_during_the_run_never_mixes_two(
    deployment, orders, small_parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelserve.dataset.run._TELL_EVERY_S", 0.0)
    with pytest.raises(errors.ResumeError, match="updated to another model"):
        run(deployment, orders, progress=lambda _: deployment.update(ms.Model(models.linear(seed=3))))


def test_rows_that_cannot_be_read_or_answered_go_to_the_dead_letters(memory, tmp_path: Path, small_parts) -> None:
    index = np.arange(40) % 4
    index[[5, 17]] = 99
    rows = [{"index": int(value), "id": f"order-{at}"} for at, value in enumerate(index)]
    rows[30]["index"] = "three"
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ms.Model(models.picky()).serve("memory") as deployment:
        report = run(deployment, tmp_path / "rows.jsonl", batch_rows=16)
    assert (report.rows, report.failures) == (40, 3)
    found = pq.read_table("out")
    kept = [at for at in range(40) if at not in (5, 17, 30)]
    assert found["id"].to_pylist() == [f"order-{at}" for at in kept]
    assert found["value"].to_pylist() == [float(index[at]) for at in kept]
    letters = [
        json.loads(line) for path in sorted(Path("out").glob("_failed-*")) for line in path.read_text().splitlines()
    ]
    assert [(letter["row"], letter["code"], letter["kept"]["id"]) for letter in letters] == [
        (5, "model_run", "order-5"),
        (17, "model_run", "order-17"),
        (30, "source", "order-30"),
    ]
    assert letters[0]["origin"].endswith("rows.jsonl")
    assert letters[0]["origin_row"] == 5
    assert "'three'" in letters[2]["error"]


def test_too_many_failures_end_the_run_and_say_which(memory, small_parts) -> None:
    index = np.full(400, 99)
    index[:20] = 1
    with ms.Model(models.picky()).serve("memory") as deployment:
        with pytest.raises(errors.TooManyFailuresError, match="row 20 of dict"):
            deployment.predict_dataset({"index": index}, "out", engine="local", max_failures=10, batch_rows=16)
        assert (
            deployment.predict_dataset(
                {"index": index}, "out", engine="local", max_failures=None, batch_rows=16
            ).failures
            == 380
        )


def test_one_bad_row_never_costs_its_batch(deployment, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("f0,f1,f2,f3\n" + "1,2,3,4\n" * 9 + "1,2,x,4\n" + "1,2,3,4\n" * 6)
    report = run(deployment, tmp_path / "rows.csv", keep=[])
    assert (report.rows, report.failures) == (16, 1)
    assert pq.read_table("out").num_rows == 15


def test_doubles_are_rounded_only_when_that_is_meant(deployment) -> None:
    frame = pd.DataFrame(X.astype(np.float64), columns=NAMES)
    with pytest.raises(errors.SignatureError, match=r"rounded.*cast=True"):
        run(deployment, frame, keep=[])
    assert not Path("out").exists()
    assert run(deployment, frame, keep=[], cast=True).rows == ROWS


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"keep": []}, errors.SignatureError, "takes 4 values a row, there are 5 columns"),
        ({"columns": ["f0", "f1", "f2", "nope"]}, errors.SignatureError, "no column.*'nope'"),
        ({"keep": ["nope"]}, errors.SignatureError, "keep="),
        ({"columns": "f0"}, errors.InputError, "list of names"),
        ({"keep": "id"}, errors.InputError, "list of names"),
        ({"columns": {"z": ["f0"]}}, errors.SignatureError, "the model takes"),
        ({"columns": ["f0", "f0", "f1", "f2"]}, errors.SignatureError, "twice"),
        ({"outputs": ["z"]}, errors.SignatureError, "no output 'z'"),
        ({"outputs": []}, errors.InputError, "at least one"),
        ({"format": "xml"}, errors.InputError, "no format 'xml'"),
        ({"format": "npy"}, errors.InputError, "one array"),
        ({"engine": "none"}, errors.InputError, "no engine 'none'"),
        ({"batch_rows": 0}, errors.InputError, "at least 1"),
        ({"max_failures": -1}, errors.InputError, "0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_made(options, kind, said, deployment, orders) -> None:
    with pytest.raises(kind, match=said):
        run(deployment, orders, **options)
    assert not Path("out").exists()


@pytest.mark.parametrize("source", [table(X[:0]), iter([table(X[:0])])])
def test_a_source_without_rows_is_refused_and_leaves_nothing(source: Any, deployment) -> None:
    with pytest.raises(errors.SourceError, match="no rows"):
        run(deployment, source)
    assert not Path("out").exists()


def test_a_file_that_cannot_be_read_ends_the_run_and_what_is_there_stays(deployment, orders, small_parts) -> None:
    broken = orders.with_name("zzz.parquet")
    pq.write_table(table(), broken, row_group_size=90)
    whole = bytearray(broken.read_bytes())
    whole[40:400] = bytes(360)
    broken.write_bytes(whole)
    with pytest.raises(errors.SourceError, match=r"zzz\.parquet.*cannot be read"):
        run(deployment, orders.parent / "*.parquet")
    assert "part-00006.parquet" in content()


def test_a_folder_with_anything_else_in_it_is_left_alone(deployment, orders) -> None:
    Path("out").mkdir()
    Path("out/thesis.txt").write_text("mine")
    with pytest.raises(errors.ResumeError, match=r"thesis\.txt"):
        run(deployment, orders)
    with pytest.raises(errors.ResumeError, match=r"thesis\.txt"):
        run(deployment, orders, restart=True)
    assert [path.name for path in Path("out").iterdir()] == ["thesis.txt"]


def test_a_restart_removes_nothing_where_it_cannot_begin(deployment, orders) -> None:
    run(deployment, orders)
    Path("out/thesis.txt").write_text("mine")
    before = content()
    with pytest.raises(errors.ResumeError, match=r"thesis\.txt"):
        run(deployment, orders, restart=True)
    assert content() == before


def test_a_second_run_into_the_same_folder_is_refused(deployment, orders, memory) -> None:
    memory.gate.clear()
    failed: list[BaseException] = []
    first = threading.Thread(target=lambda: failed.append(run(deployment, orders)))
    first.start()
    try:
        while not Path("out/_manifest.jsonl").exists():
            pass
        with pytest.raises(errors.FolderInUseError, match="another run"):
            run(deployment, orders)
    finally:
        memory.gate.set()
        first.join(30)
    assert failed[0].rows == ROWS


def test_a_place_that_does_not_answer_stops_the_reading(deployment, memory, small_parts) -> None:
    taken: list[int] = []

    def batches() -> Iterator[pa.Table]:
        for at in range(400):
            taken.append(at)
            yield table(X[:16])

    reports: list[Any] = []
    memory.gate.clear()
    running = threading.Thread(target=lambda: reports.append(run(deployment, batches())))
    running.start()
    try:
        before = -1
        while len(taken) != before or before < 4:  # until it goes no further
            before = len(taken)
            running.join(0.3)
        assert before < 20
    finally:
        memory.gate.set()
        running.join(60)
    assert len(taken) == 400
    assert reports[0].rows == 400 * 16


def test_answers_that_depend_on_all_rows_need_a_number_of_rows(memory) -> None:
    x = np.random.default_rng(2).normal(size=(10, 2)).astype(np.float32)
    with ms.Model(models.joint()).serve("memory") as deployment:
        with pytest.raises(errors.InputError, match="batch_rows="):
            deployment.predict_dataset({"x": x}, "out", engine="local")
        deployment.predict_dataset({"x": x}, "out", engine="local", batch_rows=5)
        wanted = np.concatenate([deployment.predict(x[:5]), deployment.predict(x[5:])])
    np.testing.assert_array_equal(np.stack(pq.read_table("out")["y"].to_pylist()), wanted)


def test_what_can_succeed_later_is_tried_again(deployment, orders, memory) -> None:
    memory.fail_next("run", *[errors.OverloadedError("Busy.", retry_after_s=0.01) for _ in range(3)])
    assert run(deployment, orders).failures == 0


def test_what_cannot_is_raised_and_the_call_goes_on_later(deployment, orders, memory, small_parts) -> None:
    memory.fail_next("run", errors.BackendError("The place is gone."))
    with pytest.raises(errors.BackendError, match="gone"):
        run(deployment, orders)
    assert run(deployment, orders).rows == ROWS


def test_no_thread_is_left(deployment, orders, memory) -> None:
    run(deployment, orders)
    memory.fail_next("run", errors.BackendError("The place is gone."))
    with pytest.raises(errors.BackendError):
        run(deployment, orders, "other")
    assert not [thread.name for thread in threading.enumerate() if thread.name == "modelserve-dataset"]


def test_progress_is_told_with_what_is_left(deployment, orders, small_parts, monkeypatch, capsys) -> None:
    monkeypatch.setattr("modelserve.dataset.run._TELL_EVERY_S", 0.0)
    told: list[Progress] = []
    run(deployment, orders, progress=told.append)
    assert told[-1].is_done
    assert (told[-1].rows, told[-1].total, told[-1].failures, told[-1].workers) == (ROWS, ROWS, 0, 1)
    assert [one.rows for one in told] == sorted(one.rows for one in told)
    assert any(one.eta_s for one in told)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_progress_is_plain_lines(deployment, orders, capsys) -> None:
    run(deployment, orders, progress=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith("500 of 500 rows, ")
    assert "\x1b" not in said.err
