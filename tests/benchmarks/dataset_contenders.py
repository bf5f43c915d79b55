"""The ways of answering a whole data set that bench_dataset.py compares; each is run in a process of its own.

    python dataset_contenders.py WAY MODEL SOURCE INTO ROWS  ──►  {"seconds": ..., ...} on standard output

What is timed is from the files to the files, once interpreters, workers and models are up. Ray Data starts its actors
within the run, and cannot do otherwise.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modelserve.bundle import Bundle
from modelserve.session import Session

WORKERS = 2
FEATURES = [f"f{index:02d}" for index in range(64)]
_ROWS_AT_ONCE = 65_536
_TRIED_ROWS = {"image": (1, 2, 4, 8), "table": (256, 1024, 4096, 16384)}

SESSION: Any = None


def start_worker(path: str) -> None:
    """In a worker of multiprocessing.Pool: load the model once."""
    global SESSION  # what a pool's initialiser has for its workers
    SESSION = Session(Bundle.open(path))


def answer(rows: np.ndarray) -> np.ndarray:
    return next(iter(SESSION.run({"x": rows}, ["y"]).values()))


def answer_files(files: list[str]) -> list[np.ndarray]:
    return [answer(picture(file)[np.newaxis])[0] for file in files]


def picture(file: str) -> np.ndarray:
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def written(into: Path, ids: Any, answers: np.ndarray) -> None:
    values = pa.array(np.ascontiguousarray(answers).reshape(-1))
    pq.write_table(pa.table({"id": ids, "y": pa.FixedSizeListArray.from_arrays(values, answers.shape[1])}), into)


def files_of(source: Path) -> list[str]:
    return [str(file) for file in sorted(source.iterdir())]


# The limit: each of its parts alone, nothing around it.


def race(path: str, shape: tuple[int, ...], rows: int, start: float) -> float:
    """One of several processes that run the model on arrays in memory, from the moment `start` on; its seconds."""
    start_worker(path)
    is_image = len(shape) == 3
    held = np.zeros((64, *shape), np.uint8) if is_image else np.random.default_rng(0).normal(size=(500_000, *shape))
    held = held if is_image else held.astype(np.float32)
    rates = {size: _rate(held, size) for size in _TRIED_ROWS["image" if is_image else "table"]}
    best = max(rates, key=lambda size: rates[size])
    while time.time() < start:
        time.sleep(0.001)
    done, at = 0, 0
    begun = time.perf_counter()
    while done < rows:
        answer(held[at : at + best])
        done += best
        at = (at + best) % (len(held) - best)
    return time.perf_counter() - begun


def _rate(held: np.ndarray, size: int) -> float:
    answer(held[:size])
    start = time.perf_counter()
    count = max(2, 32 if held.ndim == 4 else 65_536 // size)
    for _ in range(max(2, count // size if held.ndim == 4 else count)):
        answer(held[:size])
    return size * max(2, count // size if held.ndim == 4 else count) / (time.perf_counter() - start)


def limit(path: str, source: Path, into: Path, rows: int) -> dict[str, float]:
    """Seconds of the model by all processes at once, of a plain read (pictures: decoding by all), of a plain write."""
    is_image = source.is_dir()
    shape = picture(files_of(source)[0]).shape if is_image else (len(FEATURES),)
    spawn = multiprocessing.get_context("spawn")
    start = time.time() + (12 if is_image else 15)
    with spawn.Pool(WORKERS) as pool:
        raced = pool.starmap(race, [(path, shape, rows // WORKERS, start)] * WORKERS)
    begun = time.perf_counter()
    if is_image:
        with ThreadPoolExecutor(WORKERS) as threads:
            for _ in threads.map(picture, files_of(source)):
                pass
        ids: Any = pa.array(files_of(source))
    else:
        with pq.ParquetFile(source) as content:
            for batch in content.iter_batches(_ROWS_AT_ONCE, columns=["id", *FEATURES]):
                del batch
        ids = pa.array(np.arange(rows))
    read = time.perf_counter() - begun
    answers = np.random.default_rng(0).normal(size=(rows, 10)).astype(np.float32)
    begun = time.perf_counter()
    written(into, ids, answers)
    return {"model": max(raced), "read": read, "write": time.perf_counter() - begun}


# The ways.


def modelserve(path: str, source: Path, into: Path, rows: int, engine: str = "local") -> dict[str, float]:
    import modelserve as ms

    keep = None if source.is_dir() else ["id"]
    with ms.Model.load(path).serve("local", workers=WORKERS, name="bench") as deployment:
        report = deployment.predict_dataset(source, into, keep=keep, engine=engine)
    assert report.rows == rows
    return {"seconds": report.seconds, "batch_rows": report.batch_rows, **report.stages}


def modelserve_on_ray(path: str, source: Path, into: Path, rows: int) -> dict[str, float]:
    _ray()
    return modelserve(path, source, into, rows, "ray")


def pandas_loop(path: str, source: Path, into: Path, rows: int) -> dict[str, float]:
    start_worker(path)
    start = time.perf_counter()
    if source.is_dir():
        files = files_of(source)
        written(into, pa.array(files), np.stack(answer_files(files)))
        return {"seconds": time.perf_counter() - start}
    import pandas as pd

    with pq.ParquetFile(source) as content:
        writer = None
        for batch in content.iter_batches(_ROWS_AT_ONCE):
            frame = batch.to_pandas()
            answers = answer(np.ascontiguousarray(frame[FEATURES].to_numpy()))
            columns = {f"y_{index}": answers[:, index] for index in range(answers.shape[1])}
            table = pa.Table.from_pandas(pd.DataFrame({"id": frame["id"], **columns}), preserve_index=False)
            writer = writer or pq.ParquetWriter(into, table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()
    return {"seconds": time.perf_counter() - start}


def pool(path: str, source: Path, into: Path, rows: int) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(WORKERS, start_worker, (path,)) as workers:
        workers.map(_nothing, range(8))
        start = time.perf_counter()
        if source.is_dir():
            files = files_of(source)
            parts = [files[at : at + 16] for at in range(0, len(files), 16)]
            answers = list(itertools.chain.from_iterable(workers.imap(answer_files, parts)))
            written(into, pa.array(files), np.stack(answers))
        else:
            written(into, pa.array(np.arange(rows)), np.concatenate(list(workers.imap(answer, _batches(source)))))
        return {"seconds": time.perf_counter() - start}


def _nothing(_: int) -> None:
    time.sleep(0.05)


def _batches(source: Path) -> Iterator[np.ndarray]:
    with pq.ParquetFile(source) as content:
        for batch in content.iter_batches(8192, columns=FEATURES):
            yield np.stack([column.to_numpy() for column in batch.columns], axis=1)


class Answering:
    """What Ray Data's own documentation recommends for a model: a class, made once in each actor."""

    def __init__(self, path: str) -> None:
        start_worker(path)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if "image" in batch:
            return {"path": batch["path"], "y": np.concatenate([answer(one[np.newaxis]) for one in batch["image"]])}
        return {"id": batch["id"], "y": answer(np.stack([batch[name] for name in FEATURES], axis=1))}


def _ray() -> Any:
    import ray

    here = str(Path(__file__).parent)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    quiet = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    imports = {"env_vars": {"PYTHONPATH": here}}
    ray.init(num_cpus=WORKERS, _node_ip_address="127.0.0.1", runtime_env=imports, **quiet)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


def ray_data(path: str, source: Path, into: Path, rows: int) -> dict[str, float]:
    ray = _ray()
    start = time.perf_counter()
    is_image = source.is_dir()
    found = (
        ray.data.read_images(str(source), include_paths=True, mode="RGB")
        if is_image
        else ray.data.read_parquet(str(source), columns=["id", *FEATURES])
    )
    answered = found.map_batches(
        Answering,
        fn_constructor_args=(path,),
        batch_size=16 if is_image else 8192,
        batch_format="numpy",
        concurrency=WORKERS,
        num_cpus=0.5,
    )
    answered.write_parquet(str(into))
    seconds = time.perf_counter() - start
    ray.shutdown()
    return {"seconds": seconds}


WAYS: dict[str, Callable[[str, Path, Path, int], dict[str, float]]] = {
    "limit": limit,
    "modelserve": modelserve,
    "modelserve on Ray": modelserve_on_ray,
    "pandas loop": pandas_loop,
    "multiprocessing.Pool": pool,
    "Ray Data": ray_data,
}


def main() -> None:
    way, path, source, into, rows = sys.argv[1:]
    place = Path(into)
    shutil.rmtree(place, ignore_errors=True)
    place.unlink(missing_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    found = WAYS[way](path, Path(source), place, int(rows))
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
