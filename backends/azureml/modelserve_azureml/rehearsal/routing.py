"""Which call of the resource manager leads where, and how a body that Azure would refuse is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from modelserve.standin.loopback import Answered
from modelserve_azureml.rehearsal.calls import Call, Refusal

#: One segment of a path.
NAME = "([^/]+)"
#: Answers a call, given the names in its path.
Handler: TypeAlias = Callable[[Call, tuple[str, ...]], Answered]


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of call.

    Attributes:
        name: By which faults are planned for it.
    """

    name: str
    method: str
    pattern: re.Pattern[str]
    handler: Handler


def route(name: str, method: str, path: str, handler: Handler) -> Route:
    """A route; paths are the same whatever the case of their letters."""
    return Route(name, method, re.compile(path, re.IGNORECASE), handler)


def refuse(problems: Sequence[str]) -> None:
    """Refuse a call with everything that is wrong with it."""
    if problems:
        raise Refusal(400, "BadArgument", "; ".join(problems))
