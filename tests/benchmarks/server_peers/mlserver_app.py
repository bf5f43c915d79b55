"""MLServer's own runtime class, in its process or in its workers."""

from __future__ import annotations

from loading import DTYPE, SHAPE, load, run
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Model(MLModel):
    async def load(self) -> bool:
        self.session = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0]).reshape((-1, *SHAPE)).astype(DTYPE, copy=False)
        output = NumpyCodec.encode_output("y", run(self.session, rows))
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=[output])
