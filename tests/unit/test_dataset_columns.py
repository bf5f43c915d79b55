"""Columns of every kind become a model's tensors: lists, pictures, several inputs; a row that is none fails alone."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper, save
from PIL import Image

import modelserve as ms
from modelserve import errors
from modelserve.dataset.tables import array_from_arrow, arrow_from_array, matrix_of, side_by_side
from modelserve.testing import models
from modelserve.testing.memory import MemoryCloud

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)


def letters() -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in sorted(Path("out").glob("_failed-*")) for line in path.read_text().splitlines()
    ]


@pytest.mark.parametrize("rows", [1, 7, 4096, 20_000])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_columns_side_by_side_are_the_rows(rows: int, dtype: str) -> None:
    matrix = np.random.default_rng(1).normal(size=(rows, 64)).astype(dtype)
    columns = [np.ascontiguousarray(column) for column in matrix.T]
    np.testing.assert_array_equal(side_by_side(columns, dtype), matrix)
    batch = pa.RecordBatch.from_arrays([pa.array(column) for column in columns], names=[str(at) for at in range(64)])
    found = matrix_of(batch.slice(0, rows), np.dtype(dtype))
    assert found is not None
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, matrix)


def test_a_column_with_gaps_is_no_plain_matrix() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1.0, None]), pa.array([1.0, 2.0])], names=["a", "b"])
    assert matrix_of(batch, np.dtype(np.float64)) is None
    assert matrix_of(batch, np.dtype(np.float32)) is None


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 3), (0, 4)])
@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "float16"])
def test_arrays_become_columns_and_come_back(shape: tuple[int, ...], dtype: str) -> None:
    array = (np.random.default_rng(2).normal(size=shape) * 3).astype(dtype)
    back = array_from_arrow(arrow_from_array(array))
    assert isinstance(back, np.ndarray)
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)


def test_a_slice_of_a_column_of_lists_is_its_own_rows() -> None:
    np.testing.assert_array_equal(array_from_arrow(arrow_from_array(X).slice(3, 5)), X[3:8])


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 4)])
def test_a_column_of_lists_is_the_whole_input(kind: Any, memory: MemoryCloud) -> None:
    table = pa.table({"id": list(range(20)), "vector": pa.array(list(X.tolist()), kind)})
    with ms.Model(models.linear()).serve("memory") as deployment:
        deployment.predict_dataset(table, "out", keep=["id"], batch_rows=8)
        wanted = deployment.predict(X)
    np.testing.assert_allclose(np.stack(pq.read_table("out")["y"].to_pylist()), wanted, rtol=1e-6)


def test_a_list_of_another_length_fails_alone(memory: MemoryCloud) -> None:
    rows = X.tolist()
    rows[11] = rows[11][:3]
    rows[15] = None
    with ms.Model(models.linear()).serve("memory") as deployment:
        report = deployment.predict_dataset(
            pa.table({"vector": pa.array(rows, pa.list_(pa.float32()))}), "out", batch_rows=8
        )
        wanted = deployment.predict(np.delete(X, [11, 15], axis=0))
    assert report.failures == 2
    assert [letter["row"] for letter in letters()] == [11, 15]
    np.testing.assert_allclose(np.stack(pq.read_table("out")["y"].to_pylist()), wanted, rtol=1e-6)


def test_a_missing_number_is_nan_and_a_missing_whole_number_fails(memory: MemoryCloud) -> None:
    with ms.Model(models.linear()).serve("memory") as deployment:
        table = pa.table(
            {"a": pa.array([1.0, None], pa.float32()), **{n: pa.array([1, 2], pa.float32()) for n in "bcd"}}
        )
        assert deployment.predict_dataset(table, "out", batch_rows=2).failures == 0
    assert np.isnan(pq.read_table("out")["y"].to_pylist()[1]).all()
    with ms.Model(models.picky()).serve("memory") as deployment:
        found = deployment.predict_dataset(pa.table({"index": [1, None, 2]}), "other", batch_rows=3)
    assert (found.rows, found.failures) == (3, 1)


def test_several_inputs_are_found_by_name_or_said(memory: MemoryCloud) -> None:
    bundle = models.two_inputs()
    example = bundle.example()
    names = list(example)
    with ms.Model(bundle).serve("memory") as deployment:
        wanted = deployment.predict(example)
        deployment.predict_dataset(example, "out", batch_rows=4)
        renamed = {f"column {at}": example[name] for at, name in enumerate(names)}
        columns = {name: f"column {at}" for at, name in enumerate(names)}
        deployment.predict_dataset(renamed, "renamed", columns=columns, batch_rows=4)
    for into in ("out", "renamed"):
        found = pq.read_table(into)[bundle.signature.primary].to_pylist()
        np.testing.assert_allclose(np.asarray(found).reshape(wanted.shape), wanted, rtol=1e-6)


def test_words_are_answered_with_words(memory: MemoryCloud, tmp_path: Path) -> None:
    bundle = models.text()
    name = bundle.signature.inputs[0].name
    words = ["one", "", "007", "NA", "ünï"]
    (tmp_path / "words.csv").write_text(f"{name}\n" + "".join(f'"{word}"\n' for word in words), encoding="utf-8")
    with ms.Model(bundle).serve("memory") as deployment:
        wanted = deployment.predict(np.array(words, object))
        deployment.predict_dataset(tmp_path / "words.csv", "out", batch_rows=2)
    found = pq.read_table("out")[bundle.signature.primary].to_pylist()
    assert np.asarray(found).reshape(-1).tolist() == np.asarray(wanted).reshape(-1).tolist()


@pytest.fixture
def averaging(tmp_path: Path, memory: MemoryCloud) -> ms.Model:
    """Pictures of any size to the mean of each colour."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])]
    graph = helper.make_graph(nodes, "averaging", inputs, outputs)
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "averaging.onnx"
    )
    return ms.Model(tmp_path / "averaging.onnx", inputs=ms.ImageInput(size=8))


def picture(colour: tuple[int, int, int], size: tuple[int, int]) -> bytes:
    into = io.BytesIO()
    Image.new("RGB", size, colour).save(into, "PNG")
    return into.getvalue()


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]


def test_a_folder_of_pictures_of_several_sizes(averaging: ms.Model, tmp_path: Path) -> None:
    place = tmp_path / "pictures"
    place.mkdir()
    for number in range(12):
        size = (16, 12) if number % 3 else (9, 20)
        (place / f"{number:02}.png").write_bytes(picture(COLOURS[number % 4], size))
    (place / "05.png").write_bytes(b"no picture")
    (place / "notes.txt").write_text("beside them")
    with averaging.serve("memory") as deployment:
        report = deployment.predict_dataset(place, "out", batch_rows=5)
        wanted = {colour: deployment.predict(np.full((1, 16, 16, 3), colour, np.uint8))[0] for colour in COLOURS}
    assert (report.rows, report.failures) == (12, 1)
    found = pq.read_table("out")
    numbers = [int(Path(path).stem) for path in found["path"].to_pylist()]
    assert numbers == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    for number, mean in zip(numbers, found["y"].to_pylist(), strict=True):
        np.testing.assert_allclose(mean, wanted[COLOURS[number % 4]], atol=1e-5)
    (letter,) = letters()
    assert letter["kept"]["path"].endswith("05.png")
    assert "cannot be decoded" in letter["error"]


def test_pictures_in_a_table_are_pictures(averaging: ms.Model) -> None:
    contents = [picture(colour, (8, 8)) for colour in COLOURS]
    plain = pa.table({"image": contents})
    nested = pa.table({"image": [{"bytes": content, "path": None} for content in contents]})
    with averaging.serve("memory") as deployment:
        for into, table in (("plain", plain), ("nested", nested)):
            deployment.predict_dataset(table, into, batch_rows=4)
    assert pq.read_table("plain")["y"].to_pylist() == pq.read_table("nested")["y"].to_pylist()


def test_a_model_that_takes_no_pictures_says_how_to_make_it(memory: MemoryCloud, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(picture(COLOURS[0], (4, 4)))
    with (
        ms.Model(models.linear()).serve("memory") as deployment,
        pytest.raises(errors.SignatureError, match="ImageInput"),
    ):
        deployment.predict_dataset(tmp_path / "one.png", "out")


def test_lists_of_several_lengths_are_rows_of_their_own_shapes(memory: MemoryCloud) -> None:
    with ms.Model(models.linear()).serve("memory", name="linear") as deployment:
        ragged = {"x": [[1.0, 2.0, 3.0, 4.0], [5.0]]}
        report = deployment.predict_dataset(ragged, "out", engine="local", cast=True, batch_rows=2)
    assert (report.rows, report.failures) == (2, 1)
    assert json.loads(Path("out/_failed-00000.jsonl").read_text())["origin_row"] == 1
