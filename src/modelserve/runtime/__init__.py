"""What runs everywhere: worker processes on a laptop, and the same in every cloud's container."""

import logging

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
