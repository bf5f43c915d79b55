"""What a conversion gives does not depend on the process, and it loads no framework but the source's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FRAMEWORKS = {
    "torch",
    "tensorflow",
    "keras",
    "sklearn",
    "xgboost",
    "lightgbm",
    "catboost",
    "jax",
    "flax",
    "transformers",
}

COMMON = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
"""
SOURCES = {
    "sklearn": """
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
x = pd.DataFrame({"number": x[:, 0], "word": list("abcaabca")})
encode = make_column_transformer((StandardScaler(), ["number"]), (OneHotEncoder(), ["word"]))
source = make_pipeline(encode, LogisticRegression()).fit(x, np.arange(8) % 2)
""",
    "torch": """
import torch
torch.manual_seed(0)
source = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
""",
    "keras": """
import keras, tensorflow
keras.utils.set_random_seed(0)
source = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2, activation="gelu")])
""",
    "onnx": """
import onnx
from onnx import TensorProto, helper
value = helper.make_tensor_value_info
node, shape = helper.make_node, ["n", 4]
nodes = [node("Exp", ["x"], ["e"]), node("Sin", ["x"], ["s"]), node("Sum", ["e", "s"], ["y"])]
inputs, outputs = [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, shape)]
graph = helper.make_graph(nodes, "g", inputs, outputs)
source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
""",
}
CONVERT = """
from modelserve.convert import convert
before = {name.partition(".")[0] for name in sys.modules}
print(convert(source, x).digest)
print(*sorted({name.partition(".")[0] for name in sys.modules} - before))
"""


def converted(framework: str, seed: str) -> tuple[str, set[str]]:
    """The digest, and the packages that the conversion loaded."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMMON + SOURCES[framework] + CONVERT],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    digest, loaded = done.stdout.splitlines()
    return digest, set(loaded.split())


@pytest.mark.parametrize(
    "framework",
    ["onnx", *(pytest.param(name, marks=pytest.mark.long) for name in ("sklearn", "torch", "keras"))],
)
def test_the_digest_is_the_same_whatever_the_hash_seed_and_no_other_framework_is_loaded(framework: str) -> None:
    (first, loaded), (second, _) = converted(framework, "1"), converted(framework, "2")
    assert len(first) == 64
    assert first == second
    assert loaded & FRAMEWORKS == set()
