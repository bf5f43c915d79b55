"""A small chart of numbers over time, as SVG within a page."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH, HEIGHT = 180, 36
_PAD = 2


def points(values: Sequence[float | None], steps: int) -> list[str]:
    """Polylines through the values, the newest at the right edge; a gap where there is none.

    Args:
        steps: How many values the whole width stands for.
    """
    known = [value for value in values if value is not None]
    top = max(known, default=0.0) or 1.0
    lines: list[list[str]] = [[]]
    for at, value in enumerate(values):
        if value is None:
            lines.append([])
            continue
        x = WIDTH - (len(values) - 1 - at) * WIDTH / max(1, steps - 1)
        y = HEIGHT - _PAD - value / top * (HEIGHT - 2 * _PAD)
        lines[-1].append(f"{x:.1f},{y:.1f}")
    # A lone point is drawn as a short dash, so that it is seen.
    return [" ".join(line if len(line) > 1 else [line[0], line[0]]) for line in lines if line]
