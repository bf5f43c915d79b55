"""`modelserve optimize`: a bundle becomes smaller or faster, by passes that are named or by a search under a bound."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from modelserve.bundle import Bundle
from modelserve.cli.inspect import print_bundle
from modelserve.errors import PlanError
from modelserve.optimize import Auto, Plan, Progress, Prune, Quantize, optimize, plot, plot_image

_LABELS = "labels"


def run(
    path: Path,
    *,
    output: Path,
    quantize: str | None,
    prune: float | None,
    max_drop: float | None,
    data: Path | None,
    metric: str | None,
    goal: str,
    budget_s: float,
    report: list[Path],
    as_json: bool,
) -> None:
    """Optimise, and show what came of it."""
    if output.exists():
        raise PlanError(f"{str(output)!r} exists. Name a new folder for the optimised bundle.")
    bundle = Bundle.open(path)
    rows, labels = _read(data)
    if max_drop is not None:
        if quantize or prune is not None:
            raise PlanError("--max-drop searches by itself; leave --quantize and --prune out.")
        if rows is None:
            raise PlanError("--max-drop needs --data with rows that the model was not trained on (.npz).")
        plan: Plan = Auto(
            max_drop, metric, data=rows if labels is None else (rows, labels), goal=goal, budget_s=budget_s
        )
    else:
        plan = _plan(quantize, prune)
    with _bar(f"Optimising {path.name}") as on_progress:
        made = optimize(bundle, plan, None if max_drop is not None else rows, on_progress=on_progress)
    moved = _copy(made, output)
    for place in report:
        _write_report(made.manifest.reports[-1], place)
    print_bundle(moved, as_json=as_json)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[Progress], None]]:
    """A bar on standard error that says what is being done; nothing where no one looks."""
    screen = Console(file=sys.stderr, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(title, total=1.0)

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.share, description=str(progress))

        yield show


def _plan(quantize: str | None, prune: float | None) -> Plan:
    steps: list[Plan] = [] if prune is None else [Prune(prune)]
    steps += [Quantize(quantize)] if quantize else []
    if not steps:
        raise PlanError("Say what to do: --quantize int8, --prune 0.5, or --max-drop 0.01 with --data.")
    return steps[0] if len(steps) == 1 else steps[0] >> steps[1]


def _read(path: Path | None) -> tuple[dict[str, Any] | None, Any]:
    """Rows by input name, and the labels where the file has some."""
    if path is None:
        return None, None
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, AttributeError) as error:
        raise PlanError(f"{str(path)!r} cannot be read as .npz of arrays by input name ({error}).") from error
    labels = arrays.pop(_LABELS, None)
    return arrays, labels


def _copy(bundle: Bundle, into: Path) -> Bundle:
    import io

    from modelserve.bundle.archive import pack, unpack

    content = io.BytesIO()
    pack(bundle, content)
    return unpack(content.getvalue(), into.absolute())


def _write_report(report: Any, path: Path) -> None:
    if path.suffix.lower() in {".html", ".htm"}:
        path.write_text(plot(report), encoding="utf-8")
    else:
        plot_image(report, path)
