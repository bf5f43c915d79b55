"""What the batch driver of Azure Machine Learning runs on each instance of a job: `init()` once, `run()` for each part.

    lines/part-00003.jsonl ──run──► worker processes ──► AZUREML_BI_OUTPUT_PATH/part-00003.answers.jsonl

It lies beside `modelserve.zip` in the job's code, and is the only file of this package that goes there: it imports
nothing of it. The driver hands it the paths of files; what `run` returns only says that they were answered.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelserve.bundle import Bundle
    from modelserve.runtime import WorkerPool
    from modelserve.runtime.server.formats.question import Described, Question

PRODUCT = "modelserve.zip"
#: Where a failure is told, since the driver's own logs are not reached by the resource manager.
FAILURE = "failure.txt"
_OUTPUT = "AZUREML_BI_OUTPUT_PATH"
_UNDER_WAY = 8
_MOST_WORKERS = 8
_LONGEST_S = 3600.0

_answering: Callable[[bytes], bytes] | None = None


def init() -> None:
    """Start the workers; each loads the model that the service mounted."""
    global _answering  # the driver calls two functions of a module, which have nothing else in common
    try:
        _use_product(Path(__file__).parent / PRODUCT)
        _answering = _started(Path(os.environ["AZUREML_MODEL_DIR"]))
    except BaseException:
        _tell()
        raise


def run(mini_batch: list[str]) -> list[str]:
    """Answer each file by one of its own in the job's output."""
    assert _answering is not None, "The driver calls init first."
    try:
        for path in map(Path, mini_batch):
            answers = _answering(path.read_bytes())
            # Whole, under its own name: a part that is tried again is written anew, and nobody else writes it.
            (Path(os.environ[_OUTPUT]) / f"{path.stem}.answers{path.suffix}").write_bytes(answers)
    except BaseException:
        _tell()
        raise
    return [Path(path).name for path in mini_batch]


def _use_product(archive: Path) -> None:
    """Have this process, and the workers that it starts, find modelserve."""
    folder = tempfile.mkdtemp(prefix="modelserve-product-")
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH", ""))))
    os.environ.setdefault("MODELSERVE_HOME", tempfile.mkdtemp(prefix="modelserve-home-"))


def _started(models: Path) -> Callable[[bytes], bytes]:
    """Workers of the bundle that lies somewhere below `models`, as what answers a file."""
    from modelserve.bundle import Bundle
    from modelserve.runtime import PoolSettings, WorkerPool, usable_cores

    found = sorted(models.rglob("manifest.json"))
    if not found:
        raise FileNotFoundError(f"There is no bundle of modelserve below {models}. Was the model's version deleted?")
    bundle = Bundle.open(found[0].parent)
    workers = int(os.environ.get("MODELSERVE_BATCH_WORKERS") or max(1, min(_MOST_WORKERS, usable_cores())))
    settings = PoolSettings(timeout_s=float(os.environ.get("MODELSERVE_BATCH_TIMEOUT_S") or _LONGEST_S))
    return _answers(WorkerPool(bundle, workers=workers, settings=settings), _Face(bundle))


def _answers(pool: WorkerPool, face: _Face) -> Callable[[bytes], bytes]:
    from modelserve.runtime.server.formats import batches

    async def ask(read: Callable[[Described], Question[list[bytes]]]) -> list[bytes]:
        question = read(face)
        return question.answer(await pool.submit(question.message, question.rows, question.timeout_s))

    async def together(lines: list[bytes]) -> list[bytes]:
        room = asyncio.Semaphore(_UNDER_WAY)

        async def some(start: int) -> list[bytes]:
            async with room:
                return await batches.answers(lines[start : start + batches.MOST_ROWS], ask)

        parts = await asyncio.gather(*(some(start) for start in range(0, len(lines), batches.MOST_ROWS)))
        return [line for part in parts for line in part]

    return lambda content: b"\n".join([*asyncio.run(together(content.splitlines())), b""])


class _Face:
    """What a format has to know of the model."""

    name, version = "model", "1"

    def __init__(self, bundle: Bundle) -> None:
        self.signature = bundle.signature
        self.digest = bundle.digest


def _tell() -> None:
    (Path(os.environ[_OUTPUT]) / FAILURE).write_text(traceback.format_exc()[-4000:], encoding="utf-8")
