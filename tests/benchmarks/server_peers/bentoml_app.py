"""BentoML, with its own batching."""

from __future__ import annotations

import bentoml
import numpy as np
from loading import DTYPE, WORKERS, load, run


@bentoml.service(workers=WORKERS, traffic={"timeout": 30}, logging={"access": {"enabled": False}})
class Model:
    def __init__(self) -> None:
        self.session = load()

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    def predict(self, x: np.ndarray) -> np.ndarray:
        return run(self.session, x.astype(DTYPE))
