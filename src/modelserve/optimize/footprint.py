"""What loading a model adds to a process, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from modelserve.errors import OptimizationError
from modelserve.optimize.draft import Draft

_PROGRAM = """
import sys, json
import onnxruntime
def resident():
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 4
for key, value in json.loads(sys.argv[2]).items():
    options.add_session_config_entry(key, value)
before = resident()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(resident() - before)
"""
_RUNS = 3


def memory_bytes(draft: Draft) -> int:
    """The median growth of a process that loads the model."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise OptimizationError("Memory is measured through /proc, which this system lacks. Use goal='size'.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(draft.model.SerializeToString())
        return int(np.median([_measure(path, draft) for _ in range(_RUNS)]))


def _measure(path: Path, draft: Draft) -> int:
    import json

    command = [sys.executable, "-I", "-c", _PROGRAM, str(path), json.dumps(dict(draft.session))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    if done.returncode:
        raise OptimizationError(f"The model could not be loaded to measure its memory: {done.stderr.strip()[-300:]}")
    return max(int(done.stdout), 1)
