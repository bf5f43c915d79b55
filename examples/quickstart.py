"""Three trained models of three frameworks, each served by two local worker processes.

Run it with `make quickstart`. Nothing here is needed to use modelserve: it trains, serves, measures and prints a table.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# TensorFlow speaks of itself on import; that would stand between the lines below.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from scipy.fft import dctn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import modelserve as ms

console = Console()


@dataclass
class Trained:
    """A model with what it takes and what it answers by itself."""

    framework: str
    model: object
    held_out: np.ndarray
    predict: Callable[[np.ndarray], np.ndarray]


@dataclass
class Measured:
    """One row of the table."""

    framework: str
    size_kb: float
    difference: float
    agreement: float
    rows_per_s: float
    p50_us: float
    p99_us: float
    failed: int
    answered: int


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A spinner while something takes time; a plain line where there is no terminal."""
    start = time.perf_counter()
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            progress.add_task(what, total=None)
            yield
    else:
        yield
    console.print(f"{what}: {time.perf_counter() - start:.1f} s")


def train_keras(x: np.ndarray, y: np.ndarray) -> object:
    import tensorflow as tf

    class MyModel(tf.keras.Model):
        def __init__(self):
            super().__init__()
            self.dense1 = tf.keras.layers.Dense(128, activation="relu")
            self.dense2 = tf.keras.layers.Dense(64, activation="relu")
            self.dense3 = tf.keras.layers.Dense(10, activation="softmax")

        def call(self, inputs):
            return self.dense3(self.dense2(self.dense1(inputs)))

    tf.keras.utils.set_random_seed(0)
    model = MyModel()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=5, batch_size=64, verbose=0)
    return model


def train_torch(x: np.ndarray, y: np.ndarray) -> object:
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer1 = nn.Linear(128, 64)
            self.layer2 = nn.Linear(64, 10)

        def forward(self, x):
            return self.layer2(torch.relu(self.layer1(x)))

    torch.manual_seed(0)
    model = Net()
    optimizer, loss = torch.optim.Adam(model.parameters(), lr=0.01), nn.CrossEntropyLoss()
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(60):
        optimizer.zero_grad()
        loss(model(inputs), labels).backward()
        optimizer.step()
    return model


def train_sklearn(x: np.ndarray, y: np.ndarray) -> object:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=500).fit(x, y)


def with_spectrum(pixels: np.ndarray) -> np.ndarray:
    """The 64 pixels of each digit and their 64 DCT coefficients: float32[rows, 128]."""
    spectrum = dctn(pixels.reshape(-1, 8, 8), axes=(1, 2), norm="ortho").reshape(-1, 64)
    return np.hstack([pixels, spectrum]).astype(np.float32)


def trained_models() -> Iterator[Trained]:
    digits = load_digits()
    pixels = digits.data.astype(np.float32) / 16
    x, held_out, y, _ = train_test_split(pixels, digits.target.astype(np.int64), random_state=0, test_size=0.25)

    # First, because PyTorch's builds for CUDA bring a compiler (Triton) that ends the process when it is loaded behind
    # TensorFlow's.
    with waiting("Training a PyTorch model"):
        torch_model = train_torch(with_spectrum(x), y)

    def torch_predict(rows: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            return torch_model(torch.from_numpy(rows)).numpy()

    yield Trained("PyTorch", torch_model, with_spectrum(held_out), torch_predict)

    with waiting("Training a Keras model"):
        keras_model = train_keras(x, y)
    yield Trained("Keras", keras_model, held_out, lambda rows: keras_model.predict(rows, verbose=0))

    with waiting("Training a scikit-learn model"):
        sklearn_model = train_sklearn(x, y)
    yield Trained("scikit-learn", sklearn_model, held_out, sklearn_model.predict)


def decisions(answers: np.ndarray) -> np.ndarray:
    return answers if answers.ndim == 1 else answers.argmax(axis=1)


def measure(trained: Trained) -> Measured:
    rows = trained.held_out
    expected = trained.predict(rows)
    model = ms.Model(trained.model, example=rows[:64])
    with waiting(f"Converting and checking the {trained.framework} model"):
        bundle = model.bundle()
    with model.serve(workers=2) as deployment:
        answers = deployment.predict(rows)
        rows_per_s = throughput(deployment, np.tile(rows, (20, 1)))
        latencies = latency_us(deployment, rows[:1])
        with waiting(f"Scaling the {trained.framework} deployment to 3 workers and back to 1 under load"):
            answered, failed = scale_under_load(deployment, rows[:1])
    return Measured(
        framework=trained.framework,
        size_kb=bundle.size_bytes / 1024,
        difference=float(np.abs(answers.astype(np.float64) - expected).max()),
        agreement=float((decisions(answers) == decisions(expected)).mean()),
        rows_per_s=rows_per_s,
        p50_us=float(np.percentile(latencies, 50)),
        p99_us=float(np.percentile(latencies, 99)),
        failed=failed,
        answered=answered,
    )


def throughput(deployment: ms.Deployment, rows: np.ndarray) -> float:
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        deployment.predict(rows)
        seconds.append(time.perf_counter() - start)
    return len(rows) / min(seconds)


def latency_us(deployment: ms.Deployment, row: np.ndarray) -> list[float]:
    taken = []
    for _ in range(2000):
        start = time.perf_counter()
        deployment.predict(row)
        taken.append((time.perf_counter() - start) * 1e6)
    return taken


def scale_under_load(deployment: ms.Deployment, row: np.ndarray) -> tuple[int, int]:
    """Requests answered and failed while a background thread keeps predicting."""
    stop = threading.Event()
    counts = {"answered": 0, "failed": 0}

    def keep_predicting() -> None:
        while not stop.is_set():
            try:
                deployment.predict(row)
                counts["answered"] += 1
            except ms.ModelServeError:
                counts["failed"] += 1

    caller = threading.Thread(target=keep_predicting)
    caller.start()
    deployment.scale(3)
    stop.wait(0.3)
    deployment.scale(1)
    stop.wait(0.3)
    stop.set()
    caller.join()
    return counts["answered"], counts["failed"]


def show(results: list[Measured]) -> None:
    title = "Three frameworks, one way to serve: 2 local workers, held-out digits"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("framework", no_wrap=True)
    for heading in ("size\nKB", "largest\ndiff.", "equal\nlabels", "rows/s\n", "p50\nµs", "p99\nµs"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading.split("\n")[0]))
    table.add_column("failed while\nscaling", justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            result.framework,
            f"{result.size_kb:.1f}",
            f"{result.difference:.0e}" if result.difference else "0",
            f"{result.agreement:.2%}",
            f"{result.rows_per_s:,.0f}",
            f"{result.p50_us:.0f}",
            f"{result.p99_us:.0f}",
            f"{result.failed}/{result.answered + result.failed}",
        )
    console.print()
    console.print(table)


started = time.perf_counter()
show([measure(trained) for trained in trained_models()])
console.print(f"Done in {time.perf_counter() - started:.1f} s.")
