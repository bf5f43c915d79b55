"""FastAPI with onnxruntime in its own process, tuned by hand: no isolation, no batching, a bound for its kind."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response

from modelserve.bundle import Bundle
from modelserve.session import load

app = FastAPI()
_bundle = Bundle.open(os.environ["BUNDLE"], verify=False)
_session = load(Path(_bundle.model_path))
_input, _outputs = _bundle.signature.inputs[0].name, [_bundle.signature.primary]
_dtype = np.dtype(_bundle.signature.inputs[0].dtype)
_shape = tuple(size for size in _bundle.signature.inputs[0].shape if isinstance(size, int))


@app.get("/readyz")
async def ready() -> dict[str, bool]:
    return {"ready": True}


@app.post("/v2/models/model/infer")
async def infer(request: Request) -> Response:
    body = await request.body()
    length = request.headers.get("inference-header-content-length")
    if length is None:
        (given,) = orjson.loads(body)["inputs"]
        array = np.array(given["data"], _dtype).reshape(given["shape"])
    else:
        array = np.frombuffer(body, _dtype, offset=int(length)).reshape(-1, *_shape)
    (output,) = _session.run(_outputs, {_input: array})
    if length is not None:
        return Response(output.tobytes(), media_type="application/octet-stream")
    content = {"outputs": [{"name": _outputs[0], "shape": output.shape, "datatype": "FP32", "data": output.ravel()}]}
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
