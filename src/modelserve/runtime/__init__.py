"""What runs everywhere: worker processes on a laptop, and the same in every cloud's container."""

from modelserve.runtime.cores import usable_cores
from modelserve.runtime.pool import WorkerPool
from modelserve.runtime.settings import PoolSettings, PoolStatus, WorkerStatus

__all__ = ["PoolSettings", "PoolStatus", "WorkerPool", "WorkerStatus", "usable_cores"]
