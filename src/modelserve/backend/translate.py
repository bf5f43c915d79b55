"""A vendor's errors become ours at one seam, and stay as the cause."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from modelserve.errors import ModelServeError

#: vendor's class -> our class, or a function of the vendor's error that gives our class.
ErrorTable: TypeAlias = Mapping[
    type[BaseException], type[ModelServeError] | Callable[[BaseException], type[ModelServeError]]
]


@contextlib.contextmanager
def raising_ours(table: ErrorTable, doing: str) -> Iterator[None]:
    """Within this block a vendor's error is raised as ours, with `doing` in front of its text.

    The nearest class in the error's own ancestry wins, whatever the table's order; an error that is in no entry's
    line is raised as it is.
    """
    try:
        yield
    except ModelServeError:
        raise
    except Exception as error:
        ours = translated(table, error)
        if ours is None:
            raise
        raise ours(f"{doing} failed: {error}") from error


def translated(table: ErrorTable, error: BaseException) -> type[ModelServeError] | None:
    """Our class for a vendor's error; None where the table has nothing for it."""
    for kind in type(error).__mro__:
        entry = table.get(kind)
        if entry is None:
            continue
        return entry if isinstance(entry, type) else entry(error)
    return None
