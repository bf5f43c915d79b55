"""The suite for a place's own batch service: a data set goes in, the answers come back, and nothing stays there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelserve.backend import Backend, Capability, JobState, WorkPart
from modelserve.bundle import Bundle
from modelserve.dataset import on_service
from modelserve.errors import DeploymentNotFoundError, TooManyFailuresError
from modelserve.session import Session
from modelserve.testing import models
from modelserve.testing.conformance.comparing import Serve, needs
from modelserve.testing.place import Place

_ROWS = 300


class BatchConformance:
    """What a place that declares `Capability.BATCH` keeps."""

    @pytest.fixture
    def batching(self, backend: Backend) -> None:
        needs(backend, Capability.BATCH)

    @pytest.fixture
    def small_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A part of 128 rows of four floats, so that a few hundred rows make several."""
        monkeypatch.setattr(on_service, "_PART_BYTES", 128 * 16)
        monkeypatch.setattr(on_service, "_BATCH_ROWS", 64)

    @pytest.mark.usefixtures("batching", "small_parts")
    def test_a_data_set_is_answered_by_the_batch_service(self, serve: Serve, place: Place, tmp_path: Path) -> None:
        bundle, x = models.linear(), _values()
        deployment = serve(bundle)
        before = list(place.leftovers())
        seen: list[str] = []
        report = deployment.predict_dataset(
            _file(tmp_path, x), tmp_path / "out", keep=["id"], progress=lambda now: seen.append(now.doing)
        )
        found = _result(tmp_path / "out")
        assert (report.rows, report.failures, report.engine) == (_ROWS, 0, "batch")
        assert found["id"].to_pylist() == list(range(_ROWS))
        _assert_close(found["y"], Session(bundle).run({"x": x})["y"])
        assert any("job" in doing for doing in seen), "Progress must say what is waited for."
        assert list(place.leftovers()) == before

    @pytest.mark.usefixtures("batching")
    @pytest.mark.parametrize("make", [models.mlp, models.two_inputs, models.text])
    def test_every_kind_of_value_comes_back(self, serve: Serve, tmp_path: Path, make: Callable[[], Bundle]) -> None:
        bundle = make()
        names = [spec.name for spec in bundle.signature.outputs]
        source = {name: np.concatenate([array] * 3) for name, array in bundle.example().items()}
        serve(bundle).predict_dataset(_columns(source), tmp_path / "out", outputs=names)
        wanted = Session(bundle).run(source, names)
        found = _result(tmp_path / "out")
        for name in names:
            _assert_close(found[name], wanted[name])

    @pytest.mark.usefixtures("batching")
    def test_a_row_that_fails_costs_no_other(self, serve: Serve, tmp_path: Path) -> None:
        index = np.arange(40) % 4
        index[[3, 17]] = 99
        report = serve(models.picky()).predict_dataset({"index": index}, tmp_path / "out")
        letters = [
            line for path in sorted((tmp_path / "out").glob("_failed-*")) for line in path.read_text().splitlines()
        ]
        assert (report.rows, report.failures, len(letters)) == (40, 2, 2)
        assert _result(tmp_path / "out")["value"].to_pylist() == [float(one) for one in index if one != 99]

    @pytest.mark.usefixtures("batching")
    def test_a_job_goes_on_without_its_caller_and_is_found_again(self, serve: Serve, place: Place) -> None:
        bundle = models.linear()
        endpoint = serve(bundle)._endpoint  # noqa: SLF001  # jobs are below what a deployment shows
        line = b'{"$row":[0,0],"inputs":{"x":[1,2,3,4]},"outputs":["y"]}\n'
        endpoint.batch("goes-on", [WorkPart(0, line)])

        again = iter([WorkPart(0, line)])
        job = endpoint.batch("goes-on", again)
        assert len(list(again)) == 1, "The work was sent twice."
        on_service.follow(job, lambda _status: None)
        assert job.status().state is JobState.COMPLETED
        assert job.lines(0).startswith(b'{"$row":[0,0],"outputs":{"y":[')
        with pytest.raises(DeploymentNotFoundError):
            job.lines(1)
        before = len(place.leftovers())
        job.delete()
        job.delete()
        assert len(place.leftovers()) < before or not before

    @pytest.mark.usefixtures("batching", "small_parts")
    def test_a_stopped_run_goes_on_with_its_job(self, serve: Serve, place: Place, tmp_path: Path) -> None:
        index = np.arange(400) % 4
        index[::10] = 99
        deployment = serve(models.picky())
        before = list(place.leftovers())
        np.savez(tmp_path / "rows.npz", index=index)
        with pytest.raises(TooManyFailuresError):
            deployment.predict_dataset(tmp_path / "rows.npz", tmp_path / "out", max_failures=10, batch_rows=16)
        report = deployment.predict_dataset(tmp_path / "rows.npz", tmp_path / "out", max_failures=None, batch_rows=16)
        assert (report.rows, report.failures) == (400, 40)
        assert list(place.leftovers()) == before

    @pytest.mark.usefixtures("batching")
    def test_delete_takes_jobs_along(self, serve: Serve, place: Place) -> None:
        before = list(place.leftovers())
        deployment = serve(models.linear())
        line = b'{"$row":[0,0],"inputs":{"x":[1,2,3,4]},"outputs":["y"]}\n'
        deployment._endpoint.batch("left-behind", [WorkPart(0, line)])  # noqa: SLF001  # as above
        deployment.delete()
        assert list(place.leftovers()) == before

    @pytest.mark.usefixtures("batching")
    def test_work_that_cannot_be_sent_leaves_nothing(self, serve: Serve, place: Place) -> None:
        deployment = serve(models.linear())
        before = list(place.leftovers())

        def breaking() -> Iterator[WorkPart]:
            yield WorkPart(0, b'{"$row":[0,0],"inputs":{"x":[1,2,3,4]},"outputs":["y"]}\n')
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            deployment._endpoint.batch("broken-off", breaking())  # noqa: SLF001  # as above
        assert list(place.leftovers()) == before


def _values() -> Any:
    x = np.random.default_rng(3).normal(size=(_ROWS, 4)).astype(np.float32)
    x[5, 1], x[6, 2], x[7, 3] = np.nan, np.inf, -np.inf
    return x


def _file(folder: Path, x: Any) -> Path:
    columns = {"id": np.arange(len(x)), **{f"f{at}": x[:, at] for at in range(x.shape[1])}}
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    return folder / "rows.parquet"


def _columns(source: Mapping[str, Any]) -> Any:
    return {name: array.tolist() if array.dtype.kind == "O" else array for name, array in source.items()}


def _result(folder: Path) -> Any:
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))])


def _assert_close(column: Any, wanted: Any) -> None:
    # The service chooses which rows share a request, by which the last bits may differ.
    found: Sequence[Any] = column.to_pylist()
    if wanted.dtype.kind == "f":
        np.testing.assert_allclose(np.array(found, wanted.dtype).reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-5)
    else:
        assert np.array(found, wanted.dtype).reshape(wanted.shape).tolist() == wanted.tolist()
