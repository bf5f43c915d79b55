"""Seconds of a conversion with its certificate, once the framework is imported; each in a process of its own.

The first conversion of a process also imports the converter (skl2onnx, onnxscript, tf2onnx); the second does not.
"""

from __future__ import annotations

import subprocess
import sys

COMMON = """
import logging, os, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
x = np.random.default_rng(0).normal(size=(64, WIDTH)).astype(np.float32)
"""

#: The models of examples/quickstart.py, untrained where training changes no time of a conversion, and a recurrent one.
SOURCES = {
    "Keras, three dense layers": """
import tensorflow as tf
class MyModel(tf.keras.Model):
    def __init__(self):
        super().__init__()
        dense = tf.keras.layers.Dense
        self.layers_ = [dense(128, activation="relu"), dense(64, activation="relu"), dense(10, activation="softmax")]
    def call(self, inputs):
        for layer in self.layers_:
            inputs = layer(inputs)
        return inputs
make = MyModel
""",
    "PyTorch, two linear layers": """
import torch
def make():
    return torch.nn.Sequential(torch.nn.Linear(WIDTH, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
""",
    "PyTorch, a recurrent layer": """
import torch
x = x.reshape(64, 8, WIDTH // 8)
class Last(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.recur, self.head = torch.nn.LSTM(WIDTH // 8, 32, batch_first=True), torch.nn.Linear(32, 10)
    def forward(self, x):
        return self.head(self.recur(x)[0][:, -1])
make = Last
""",
    "scikit-learn, logistic regression": """
from sklearn.linear_model import LogisticRegression
def make():
    return LogisticRegression().fit(x, np.arange(64) % 10)
""",
    "a plain function": """
def make():
    return lambda rows: rows * 2
""",
}
MEASURE = """
from modelserve.convert import portable_or_live
for _ in range(2):
    model = make()
    start = time.perf_counter()
    portable_or_live(model, x)
    print(time.perf_counter() - start)
"""


def seconds(source: str) -> list[float]:
    """Of the first and of the second conversion in one process."""
    program = (COMMON + source + MEASURE).replace("WIDTH", "128")
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def main() -> None:
    """Print the table."""
    print(f"{'source':36} {'first, s':>9} {'second, s':>9}")
    for name, source in SOURCES.items():
        first, second = seconds(source)
        print(f"{name:36} {first:9.2f} {second:9.2f}")


if __name__ == "__main__":
    main()
