"""LitServe, with its own batching."""

from typing import Any

import litserve
import numpy as np
from loading import DTYPE, PORT, SHAPE, WORKERS, load, run


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.session = load()

    # Without annotations: LitServe hands them to FastAPI, which would look for the body elsewhere.
    def decode_request(self, request):
        return np.asarray(request["x"], DTYPE).reshape(SHAPE)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return run(self.session, x)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        return {"y": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(max_batch_size=64, batch_timeout=0.002),
        accelerator="cpu",
        devices=1,
        workers_per_device=WORKERS,
        fast_queue=True,
    )
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning", access_log=False)
