"""The batch driver of Azure Machine Learning, as one process of a job sees it: `init()` once, `run()` for mini-batches.

    python batch_driver.py SCRIPT MINI_BATCH_SIZE RETRIES TIMEOUT_S FILE...

It knows nothing of modelserve, as the service's own does not. Its exit status is 42 where files failed, as there.
"""

from __future__ import annotations

import importlib.util
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

_FAILED = 42


def main(script: str, size: str, retries: str, timeout_s: str, *files: str) -> int:
    """Run a script over files; the exit status."""
    signal.signal(signal.SIGALRM, _too_late)
    module = _loaded(Path(script))
    module.init()
    failed = 0
    for start in range(0, len(files), int(size)):
        mini_batch = list(files[start : start + int(size)])
        failed += len(mini_batch) - _succeeded(module, mini_batch, int(retries), float(timeout_s))
    return _FAILED if failed else 0


def _loaded(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("user_script", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _succeeded(module: ModuleType, mini_batch: list[str], retries: int, timeout_s: float) -> int:
    """How many of the files the script says to have processed: as many as it returns elements."""
    for _ in range(retries + 1):
        try:
            signal.setitimer(signal.ITIMER_REAL, timeout_s)
            found: Any = module.run(mini_batch)
            return min(len(found), len(mini_batch))
        except Exception:  # noqa: BLE001  # whatever a user's script raises is a failed attempt
            traceback.print_exc()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return 0


def _too_late(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError("The mini-batch took longer than the deployment allows.")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
