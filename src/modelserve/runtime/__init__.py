"""What runs everywhere: worker processes on a laptop, and the same in every cloud's container.

A worker process is of this package, too, and takes no memory for what only the application needs: hence everything
here loads on first use.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelserve.runtime.cores import threads_wanted, usable_cores
    from modelserve.runtime.pool import WorkerPool
    from modelserve.runtime.settings import PoolSettings, PoolStatus, WorkerStatus
    from modelserve.runtime.tune import Choice, choose

# Heard by whoever listens, and printed by nobody: without a handler Python itself would print warnings.
logging.getLogger("modelserve").addHandler(logging.NullHandler())

__all__ = [
    "Choice",
    "PoolSettings",
    "PoolStatus",
    "WorkerPool",
    "WorkerStatus",
    "choose",
    "threads_wanted",
    "usable_cores",
]

_HOME = {
    "Choice": "tune",
    "PoolSettings": "settings",
    "PoolStatus": "settings",
    "WorkerPool": "pool",
    "WorkerStatus": "settings",
    "choose": "tune",
    "threads_wanted": "cores",
    "usable_cores": "cores",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
