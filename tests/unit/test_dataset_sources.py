"""Rows from wherever they are: the same values from every kind of source, from any row on."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from modelserve.dataset.sources import Source, Wanted, open_source
from modelserve.errors import SourceError

ROWS = 1000
TABLE = pa.table({"id": np.arange(ROWS), "a": np.linspace(0, 1, ROWS), "b": np.linspace(5, 6, ROWS)})
WANTED = Wanted(("b", "id"), {"b": pa.float64(), "id": pa.int64()})


def _parquet(folder: Path) -> Any:
    pq.write_table(TABLE.slice(0, 600), folder / "one.parquet", row_group_size=170)
    pq.write_table(TABLE.slice(600), folder / "two.parquet", row_group_size=170)
    return folder / "*.parquet"


def _feather(folder: Path) -> Any:
    pa.feather.write_feather(TABLE, folder / "rows.feather", chunksize=130)
    return folder / "rows.feather"


def _stream(folder: Path) -> Any:
    with pa.ipc.new_stream(folder / "rows.arrows", TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=90)
    return folder / "rows.arrows"


def _csv(folder: Path) -> Any:
    pa.csv.write_csv(TABLE.slice(0, 300), folder / "one.csv")
    pa.csv.write_csv(TABLE.slice(300), folder / "two.csv")
    return [folder / "one.csv", str(folder / "two.csv")]


def _json_lines(folder: Path) -> Any:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TABLE.to_pylist()))
    return folder


def _npz(folder: Path) -> Any:
    np.savez(folder / "rows.npz", allow_pickle=False, **{name: TABLE[name].to_numpy() for name in TABLE.column_names})
    return folder / "rows.npz"


def _packed(folder: Path) -> Any:
    arrays = {name: TABLE[name].to_numpy() for name in TABLE.column_names}
    np.savez_compressed(folder / "rows.npz", allow_pickle=False, **arrays)
    return folder / "rows.npz"


def _reader(_: Path) -> Any:
    return pa.RecordBatchReader.from_batches(TABLE.schema, TABLE.to_batches(max_chunksize=77))


def _frames(_: Path) -> Iterator[pd.DataFrame]:
    return (TABLE.slice(at, 140).to_pandas() for at in range(0, ROWS, 140))


def _columns(_: Path) -> Any:
    return {name: TABLE[name].to_numpy() for name in TABLE.column_names}


SOURCES: dict[str, Callable[[Path], Any]] = {
    "parquet": _parquet,
    "feather": _feather,
    "arrow stream": _stream,
    "csv": _csv,
    "json lines": _json_lines,
    "npz": _npz,
    "packed npz": _packed,
    "arrow table": lambda _: TABLE,
    "record batch": lambda _: TABLE.combine_chunks().to_batches()[0],
    "pandas": lambda _: TABLE.to_pandas(),
    "polars": lambda _: pl.from_arrow(TABLE),
    "columns": _columns,
    "reader": _reader,
    "iterator of frames": _frames,
    "iterator of rows": lambda _: iter(TABLE.to_pylist()),
}


def read(source: Source, wanted: Wanted, *, start: int = 0, chunk_rows: int = 64) -> pa.Table:
    return pa.Table.from_batches([chunk.rows for chunk in source.chunks(wanted, start=start, chunk_rows=chunk_rows)])


@pytest.mark.parametrize("start", [0, 1, 599, 600, 601, 999])
@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_gives_the_same_rows_from_any_row_on(kind: str, start: int, tmp_path: Path) -> None:
    source = open_source(SOURCES[kind](tmp_path))
    assert source.rows in (ROWS, None)
    found = read(source, WANTED, start=start)
    assert found.column_names == ["b", "id"]
    np.testing.assert_array_equal(found["id"].to_numpy(), np.arange(start, ROWS))
    np.testing.assert_allclose(found["b"].to_numpy(), TABLE["b"].to_numpy()[start:], rtol=1e-15)


@pytest.mark.parametrize("kind", SOURCES)
def test_no_piece_is_larger_than_was_asked_for(kind: str, tmp_path: Path) -> None:
    chunks = list(open_source(SOURCES[kind](tmp_path)).chunks(WANTED, start=0, chunk_rows=100))
    assert all(0 < chunk.rows.num_rows <= 100 for chunk in chunks)


@pytest.mark.parametrize("kind", SOURCES)
def test_looking_at_the_head_takes_nothing_away(kind: str, tmp_path: Path) -> None:
    source = open_source(SOURCES[kind](tmp_path))
    head = source.head(WANTED, 10)
    assert 0 < head.num_rows <= 10
    assert head.column("id").to_pylist() == list(range(head.num_rows))
    assert read(source, WANTED).num_rows == ROWS


def test_a_piece_says_which_file_and_row_it_comes_from(tmp_path: Path) -> None:
    source = open_source(_parquet(tmp_path))
    for chunk in source.chunks(WANTED, start=550, chunk_rows=64):
        first = chunk.rows.column("id")[0].as_py()
        is_second = first >= 600
        assert chunk.origin.endswith("two.parquet" if is_second else "one.parquet")
        assert chunk.start == first - 600 * is_second


def test_only_the_columns_wanted_are_read(tmp_path: Path) -> None:
    source = open_source(_parquet(tmp_path))
    assert next(source.chunks(Wanted(("a",)), start=0, chunk_rows=10)).rows.schema.names == ["a"]


def test_files_are_taken_in_the_order_of_their_names_and_hidden_ones_are_left(tmp_path: Path) -> None:
    for name in ("b", "a", "_hidden", ".hidden"):
        pq.write_table(pa.table({"name": [name]}), tmp_path / f"{name}.parquet")
    (tmp_path / "inner").mkdir()
    pq.write_table(pa.table({"name": ["inner"]}), tmp_path / "inner" / "c.parquet")
    assert read(open_source(tmp_path), Wanted(("name",)))["name"].to_pylist() == ["a", "b", "inner"]


def test_a_url_is_opened_through_fsspec() -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    for part in range(2):
        with store.open(f"/bucket/part-{part}.parquet", "wb") as file:
            pq.write_table(TABLE.slice(part * 500, 500), file)
    source = open_source("memory://bucket/*.parquet")
    assert read(source, WANTED, start=499)["id"].to_pylist() == list(range(499, ROWS))
    assert [Path(file["path"]).name for file in source.identity["files"]] == ["part-0.parquet", "part-1.parquet"]
    before = source.identity
    with store.open("/bucket/part-1.parquet", "wb") as file:
        pq.write_table(TABLE.slice(500, 499), file)
    assert open_source("memory://bucket/*.parquet").identity != before


def test_identities_are_equal_for_equal_content_only(tmp_path: Path) -> None:
    assert open_source(TABLE).identity == open_source(TABLE.slice(0)).identity
    assert open_source(TABLE).identity != open_source(TABLE.slice(0, 999)).identity
    place = _parquet(tmp_path)
    before = open_source(place).identity
    assert open_source(place).identity == before
    pq.write_table(TABLE.slice(600), tmp_path / "two.parquet", row_group_size=99)
    assert open_source(place).identity != before


def test_a_cell_that_is_no_number_spoils_its_row_only(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,a\n1,0.5\n2,half\n3,\n4, 4 \n5,NaN\n")
    wanted = Wanted(("a", "id"), {"a": pa.float64()})
    (chunk,) = open_source(tmp_path / "rows.csv").chunks(wanted, start=0, chunk_rows=10)
    assert list(chunk.refused) == [1]
    assert "'half'" in chunk.refused[1]
    assert "double" in chunk.refused[1]
    np.testing.assert_array_equal(
        chunk.rows.column("a").to_numpy(zero_copy_only=False), [0.5, np.nan, np.nan, 4, np.nan]
    )
    assert chunk.rows.column("id").to_pylist() == ["1", "2", "3", "4", "5"]


def test_a_line_that_is_no_json_spoils_its_row_only(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": \n[3]\n{"a": "four"}\n{"a": null}\n')
    (chunk,) = open_source(tmp_path / "rows.jsonl").chunks(Wanted(("a",), {"a": pa.float64()}), start=0, chunk_rows=10)
    assert sorted(chunk.refused) == [1, 2, 3]
    assert chunk.rows.column("a").to_pylist() == [1.0, None, None, None, None]


def _write(path: Path, content: bytes = b"") -> Path:
    path.write_bytes(content)
    return path


NOT_ROWS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no such file": (lambda folder: folder / "none.parquet", "There is no file"),
    "a pattern that matches nothing": (lambda folder: str(folder / "*.csv"), "There is no file"),
    "an empty folder": (lambda folder: folder, "There is no file"),
    "damaged Parquet": (lambda folder: _write(folder / "x.parquet", b"PAR1" + bytes(99)), "cannot be read"),
    "damaged Arrow": (lambda folder: _write(folder / "x.arrow", b"ARROW1" + bytes(99)), "cannot be read"),
    "Feather version 1": (lambda folder: _write(folder / "x.feather", b"FEA1" + bytes(99)), "version 1"),
    "damaged npy": (lambda folder: _write(folder / "x.npy", b"no numbers"), "cannot be read"),
    "an empty CSV file": (lambda folder: _write(folder / "x.csv"), "no line of column names"),
    "a column named twice": (lambda folder: _write(folder / "x.csv", b"a,a\n1,2\n"), "twice"),
    "JSON lines without objects": (lambda folder: _write(folder / "x.jsonl", b"1\n2\n"), "no JSON object"),
    "an unknown kind": (lambda folder: _write(folder / "x.docx", b"x"), "no known kind"),
    "an iterator that gives nothing": (lambda _: iter([]), "gives nothing"),
    "an iterator of numbers": (lambda _: iter([1, 2]), "gives"),
    "a number": (lambda _: 7, "no source of rows"),
    "bytes": (lambda _: b"abc", "no source of rows"),
}


@pytest.mark.parametrize("case", NOT_ROWS)
def test_what_holds_no_rows_is_refused_with_the_way_out(case: str, tmp_path: Path) -> None:
    make, said = NOT_ROWS[case]
    with pytest.raises(SourceError, match=said):
        read(open_source(make(tmp_path)), WANTED)


def test_files_of_several_kinds_are_refused(tmp_path: Path) -> None:
    _parquet(tmp_path)
    _csv(tmp_path)
    with pytest.raises(SourceError, match="several kinds"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (pa.table({"id": [1]}), "lacks the column.*'b'"),
        (pa.table({"id": [1], "b": ["text"]}), "'b' as string, the first file as double"),
    ],
)
def test_columns_that_change_from_file_to_file_are_refused(other: pa.Table, said: str, tmp_path: Path) -> None:
    place = _parquet(tmp_path)
    pq.write_table(other, tmp_path / "zzz.parquet")
    with pytest.raises(SourceError, match=said):
        read(open_source(place), WANTED)


def test_a_csv_row_with_too_many_cells_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n1,2,3\n")
    with pytest.raises(SourceError, match="Expected 2 columns, got 3"):
        read(open_source(tmp_path / "x.csv"), Wanted(("a",), {"a": pa.float64()}))
