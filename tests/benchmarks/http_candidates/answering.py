"""What every candidate does with a request: read one row, ask the pool, write the answer."""

from __future__ import annotations

import os

import numpy as np
import orjson

from modelserve import wire
from modelserve.bundle import Bundle
from modelserve.runtime import PoolSettings, WorkerPool

BINARY = b"application/octet-stream"


class Answering:
    """A pool, and the way from a body to a body."""

    def __init__(self) -> None:
        bundle = Bundle.open(os.environ["BUNDLE"], verify=False)
        self._signature = bundle.signature
        self._name = bundle.signature.inputs[0].name
        self._pool = WorkerPool(bundle, workers=int(os.environ.get("WORKERS", "1")), settings=PoolSettings())

    async def answer(self, body: bytes, *, binary: bool) -> bytes:
        """One row as JSON, or as raw float32; the primary output in the same way."""
        if binary:
            array = np.frombuffer(body, np.float32).reshape(1, -1)
        else:
            array = np.array(orjson.loads(body)["data"], np.float32)
        tensors, rows, _ = self._signature.check(array)
        reply = await self._pool.submit(wire.encode_request(tensors), rows)
        (output,) = wire.decode(wire.reply_layout(reply.header), reply.body).values()
        return output.tobytes() if binary else orjson.dumps(output, option=orjson.OPT_SERIALIZE_NUMPY)
