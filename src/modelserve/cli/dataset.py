"""`modelserve predict` over a data set: from files of any number and size into a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelserve.cli.output import print_json, print_line, working
from modelserve.cli.predict import opened
from modelserve.errors import InputError

_MAGIC = "*?["


def is_meant(inputs: Sequence[str], output: Path | None) -> bool:
    """Whether a folder is to be written, and not one file or the screen."""
    return output is not None and (output.is_dir() or not output.suffix) and "-" not in inputs


def check_single(inputs: Sequence[str], output: Path | None, options: Mapping[str, Any]) -> None:
    """Refuse what only a data set can be asked.

    Raises:
        InputError: naming it.
    """
    given = inputs[0]
    if output is not None and not output.suffix:
        raise InputError(f"A data set is not read from standard input. Give a file in place of '-' with -o {output}.")
    is_one = len(inputs) == 1 and "://" not in given and not any(letter in given for letter in _MAGIC)
    if is_one and not options and not (given != "-" and Path(given).is_dir()):
        return
    asked = f"--{next(iter(options)).replace('_', '-')}" if options else repr(" ".join(inputs))
    raise InputError(f"{asked} asks for a data set, whose answers are written to a folder. Name one with -o FOLDER.")


def run(
    model: str,
    inputs: Sequence[str],
    output: Path | None,
    *,
    target: str | None,
    workers: int | None,
    options: Mapping[str, Any],
    as_json: bool,
) -> None:
    """Serve or find the model, answer every row, and print what it came to."""
    assert output is not None
    source = inputs[0] if len(inputs) == 1 else list(inputs)
    with working(f"Starting {model}"):
        deployment = opened(model, target, scale=workers)
    with deployment:
        report = deployment.predict_dataset(source, output, progress=not as_json, **options)
    if as_json:
        print_json(json.loads(report.to_json()))
        return
    for line in str(report).splitlines():
        print_line(line)
