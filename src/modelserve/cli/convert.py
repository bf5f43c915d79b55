"""`modelserve convert`: a model file becomes a bundle."""

from __future__ import annotations

from pathlib import Path

from modelserve.cli import tables
from modelserve.cli.inspect import print_bundle
from modelserve.cli.output import working


def run(source: Path, *, output: Path, example: Path | None, as_json: bool) -> None:
    """Convert, and show what came of it."""
    if not source.exists():
        raise FileNotFoundError(f"There is no model file {str(source)!r}.")
    given = None if example is None else tables.example(tables.read(example))
    from modelserve.convert import convert

    with working(f"Converting {source.name}"):
        bundle = convert(source, given, into=output)
    print_bundle(bundle, as_json=as_json)
