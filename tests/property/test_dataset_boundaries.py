"""Where batches end depends on the rows' numbers only; a manifest that was cut anywhere is read or refused."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserve.dataset.manifest import Entry, Manifest
from modelserve.dataset.pieces import Boundaries, pieces
from modelserve.dataset.sources import Chunk
from modelserve.errors import ResumeError


def chunks(sizes: list[int], start: int) -> list[Chunk]:
    ends = start + np.cumsum([0, *sizes])
    made = []
    for number, (first, last) in enumerate(itertools.pairwise(ends)):
        rows = pa.RecordBatch.from_arrays([pa.array(np.arange(first, last))], names=["id"])
        refused = {row: "odd" for row in range(int(last - first)) if (first + row) % 7 == 3}
        made.append(Chunk(rows, f"file-{number}", 0, refused))
    return made


@given(
    sizes=st.lists(st.integers(1, 40), max_size=12),
    batch_rows=st.integers(1, 17),
    batches=st.integers(1, 5),
    parts_before=st.integers(0, 3),
)
def test_batches_are_the_same_however_the_source_comes_in(sizes, batch_rows, batches, parts_before) -> None:
    boundaries = Boundaries(batch_rows, batch_rows * batches)
    start = parts_before * boundaries.part_rows
    total = sum(sizes)
    found = list(pieces(chunks(sizes, start), boundaries, start))
    ids = [piece.rows.column("id").to_pylist() for piece in found]
    assert [row for some in ids for row in some] == list(range(start, start + total))
    for piece, some in zip(found, ids, strict=True):
        assert piece.start == some[0]
        assert piece.start % batch_rows == 0
        assert len(some) == min(batch_rows, start + total - piece.start)
        assert piece.part == some[0] // boundaries.part_rows == some[-1] // boundaries.part_rows
        assert sorted(piece.refused) == [at for at, row in enumerate(some) if row % 7 == 3]
        # Each row's place is its own number within its own chunk.
        ends = start + np.cumsum([0, *sizes])
        for at, row in enumerate(some):
            number = int(np.searchsorted(ends, row, "right")) - 1
            assert piece.place(at) == (f"file-{number}", row - ends[number])


def whole() -> bytes:
    found = Manifest({"model": "m", "source": {"kind": "table"}, "batch_rows": 4, "part_rows": 8}, is_complete=True)
    for part in range(3):
        found.entries[part] = Entry(
            part, 8, part, {"name": f"part-{part}", "bytes": 9, "sha256": "ä"}, None, "d" * part
        )
    return found.content()


@given(st.integers(0, len(whole())))
def test_a_manifest_that_was_cut_anywhere_holds_whole_lines_only(length: int) -> None:
    content = whole()[:length]
    lines = content.count(b"\n")
    found = Manifest.parsed(content)
    if lines == 0:
        assert found is None
        return
    assert found is not None
    assert sorted(found.entries) == list(range(min(lines - 1, 3)))
    assert found.is_complete == (lines == 5)
    assert whole().startswith(found.content())


@given(st.binary(min_size=1).map(lambda noise: noise + b"\n"))
def test_noise_is_no_manifest(noise: bytes) -> None:
    with pytest.raises(ResumeError):
        Manifest.parsed(noise)


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4))
def test_json_of_somebody_else_is_no_manifest(content: dict) -> None:
    with pytest.raises(ResumeError):
        Manifest.parsed(json.dumps(content).encode() + b"\n")
