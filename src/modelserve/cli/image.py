"""`modelserve image build`: the runtime's container image into a registry or a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from modelserve import image
from modelserve.cli.output import print_heading, print_json, print_pairs, reporting, size, working
from modelserve.errors import ImageError


def build(
    *,
    push: str | None,
    output: Path | None,
    platform: str,
    base: str | None,
    python: str | None,
    extras: Sequence[str],
    accelerator: str | None,
    in_json: bool,
) -> None:
    """Build it, put it where it is wanted, and show its digest."""
    place = None if push is None else image.Reference.parse(push)
    if output is not None and output.exists():
        raise ImageError(f"{str(output)!r} exists. Name a new folder for the image.")
    recipe = image.Recipe(
        platform=image.Platform.parse(platform),
        base=image.DEFAULT_BASE if base is None else image.Reference.parse(base),
        python=python or "",
        extras=("container", *extras),
        accelerator=accelerator,
    )
    with reporting("Building the runtime's image") as on_progress:
        made = image.build(recipe, on_progress=on_progress)
    pushed = _pushed(made, place)
    if output is not None:
        with working(f"Writing {output}"):
            image.write_layout(made, output)
    _show(made, pushed, output, in_json=in_json)


def _pushed(made: image.Image, place: image.Reference | None) -> image.Pushed | None:
    if place is None:
        return None
    with _bar() as on_progress:
        return image.push(made, place, on_progress=on_progress)


@contextmanager
def _bar() -> Iterator[Callable[[image.Progress], None]]:
    """A bar on standard error; nothing where no one looks."""
    screen = Console(file=sys.stderr, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("Pushing", total=None)

        def show(progress: image.Progress) -> None:
            bar.update(task, completed=progress.done_bytes, total=progress.all_bytes, description=progress.doing)

        yield show


def _show(made: image.Image, pushed: image.Pushed | None, output: Path | None, *, in_json: bool) -> None:
    reference = None if pushed is None else str(pushed.reference)
    outcomes = {} if pushed is None else {digest: outcome.value for digest, outcome in pushed.outcomes.items()}
    if in_json:
        print_json(
            {
                "digest": made.digest,
                "tag": made.tag,
                "platform": str(made.platform),
                "size_bytes": made.size_bytes,
                "packages": dict(made.packages),
                "reference": reference,
                "blobs": outcomes,
                "folder": None if output is None else str(output),
            }
        )
        return
    print_heading("Runtime image", str(made.platform))
    pairs = {"digest": made.digest, "tag": made.tag, "size": size(made.size_bytes)}
    pairs |= {
        "packages": f"{len(made.packages)}, onnxruntime {dict(made.packages).get('onnxruntime', 'not among them')}"
    }
    if reference is not None:
        sent = list(outcomes.values())
        what = ", ".join(f"{sent.count(kind)} {kind}" for kind in dict.fromkeys(sent)) or "it was there already"
        pairs |= {"pushed to": reference, "parts": what}
    if output is not None:
        pairs |= {"folder": str(output)}
    print_pairs(pairs)
