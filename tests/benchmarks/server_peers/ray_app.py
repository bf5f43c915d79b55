"""Ray Serve, behind the HAProxy that its makers advise for throughput."""

from __future__ import annotations

import json
import time

import numpy as np
import ray
from loading import DTYPE, PORT, SHAPE, WORKERS, load, run
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=WORKERS, max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
class Model:
    def __init__(self) -> None:
        self.session = load()

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        if request.headers.get("content-type") == "application/octet-stream":
            rows = np.frombuffer(body, DTYPE)
        else:
            rows = np.array(json.loads(body)["x"], DTYPE)
        answer = run(self.session, rows.reshape((1, *SHAPE)))[0]
        return Response(json.dumps({"y": answer.tolist()}), media_type="application/json")


if __name__ == "__main__":
    ray.init(
        include_dashboard=False,
        num_cpus=4,
        _node_ip_address="127.0.0.1",
        object_store_memory=300 << 20,
        logging_level="ERROR",
        log_to_driver=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Model.bind(), route_prefix="/predict")
    while True:
        time.sleep(1)
