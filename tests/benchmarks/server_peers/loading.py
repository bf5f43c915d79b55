"""What every peer does: one session a process, one thread each, as the makers of each advise for such models."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime as ort

PORT = int(os.environ["PEER_PORT"])
WORKERS = int(os.environ["PEER_WORKERS"])
DTYPE = np.dtype(os.environ["PEER_DTYPE"])
SHAPE = tuple(int(size) for size in os.environ["PEER_SHAPE"].split(","))


def load() -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(os.environ["PEER_MODEL"], options, providers=["CPUExecutionProvider"])


def run(session: ort.InferenceSession, rows: np.ndarray) -> np.ndarray:
    return session.run(None, {session.get_inputs()[0].name: rows})[0]
