"""Score files of orders into a folder, stop half-way, and go on.

python examples/data_set.py
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

import modelserve as ms
from modelserve.dataset import Progress

FEATURES = ["price", "qty", "discount"]


def write_orders(folder: Path, *, files: int = 4, rows: int = 50_000) -> None:
    """Some files of orders."""
    random = np.random.default_rng(0)
    for number in range(files):
        orders = pd.DataFrame(random.normal(size=(rows, len(FEATURES))), columns=FEATURES)
        orders["order_id"] = np.arange(number * rows, (number + 1) * rows)
        orders.to_parquet(folder / f"orders-{number}.parquet")


def stop_half_way(progress: Progress) -> None:
    """What a closed laptop does."""
    if progress.total is not None and progress.rows > progress.total // 2:
        raise KeyboardInterrupt


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        Path("orders").mkdir()
        write_orders(Path("orders"))
        seen = pd.read_parquet("orders/orders-0.parquet")[FEATURES].to_numpy()[:2000]
        classifier = LogisticRegression().fit(seen, seen[:, 0] * seen[:, 1] > seen[:, 2])
        with ms.Model(classifier, example=seen[:64]).serve("local", name="orders") as deployment:
            try:
                deployment.predict_dataset("orders/*.parquet", "scored", keep=["order_id"], progress=stop_half_way)
            except KeyboardInterrupt:
                print("stopped, with", len(list(Path("scored").glob("part-*"))), "parts in place")
            report = deployment.predict_dataset("orders/*.parquet", "scored", keep=["order_id"], progress=True)
        print(report)
        scored = pd.read_parquet("scored")
        print((scored["label"] == classifier.predict(pd.read_parquet("orders")[FEATURES].to_numpy())).mean())


if __name__ == "__main__":
    main()
