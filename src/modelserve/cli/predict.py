"""`modelserve predict`: the rows of a file, answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modelserve import Deployment, Model, attach
from modelserve.cli import answers, tables
from modelserve.cli.output import print_json, print_line, working
from modelserve.errors import InputError, NotSupportedError

#: Where a bundle runs when no target is named.
_HERE = "local"


def run(
    model: str,
    inputs: Path,
    *,
    output: Path | None,
    outputs: Sequence[str] | None,
    target: str | None,
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """Serve or find the model, ask it, and print or write what it answers."""
    if output is not None:
        answers.check_kind(output, outputs=len(outputs or ("primary",)))
    content = tables.read(inputs)
    with working(f"Starting {model}"):
        deployment = opened(model, target, scale=1)
    with deployment, working("Predicting"):
        found = _ask(deployment, content, outputs, timeout_s)
    is_one = outputs is None
    if output is not None:
        answers.write(found, output, is_one=is_one)
    elif as_json:
        print_json(answers.document(found, is_one=is_one))
    else:
        for line in answers.lines(found, is_one=is_one):
            print_line(line)


def opened(model: str, target: str | None, *, scale: int | None) -> Deployment:
    """The deployment that is meant; a bundle or model file is served for as long as it is open.

    Args:
        scale: Replicas of a bundle; None leaves the number to the place.
    """
    if Path(model).exists():
        return Model(Path(model)).serve(target or _HERE, scale=scale, ephemeral=True)
    try:
        return attach(model, target)
    except NotSupportedError as error:
        raise InputError(
            f"There is no file or folder {model!r}, and no deployment to ask by that name: {error}"
        ) from error


def _ask(
    deployment: Deployment, content: tables.Content, outputs: Sequence[str] | None, timeout_s: float | None
) -> answers.Answers:
    signature = deployment.signature
    names = [signature.primary] if outputs is None else list(outputs)
    found = deployment.predict(tables.arranged(content, signature), outputs=names, timeout_s=timeout_s)
    # A single row without its batch axis is answered without one; files hold rows.
    return {
        name: np.atleast_1d(np.asarray(array, object if isinstance(array, str) else None))
        for name, array in found.items()
    }
