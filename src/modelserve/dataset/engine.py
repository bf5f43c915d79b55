"""Who makes the parts: an engine is found by its entry point, and gives them in any order.

modelserve.engines      name -> a class that is made with a predictor and what it serves
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

from modelserve import plugins
from modelserve.backend import Servable
from modelserve.dataset.manifest import Entry
from modelserve.dataset.part import Part
from modelserve.dataset.pieces import Boundaries
from modelserve.dataset.plan import Plan
from modelserve.dataset.predictor import Predictor
from modelserve.dataset.report import Tally
from modelserve.errors import InputError

ENGINES = "modelserve.engines"


class Engine(Protocol):
    """Makes the parts of a plan.

    Args:
        servable: What the predictor serves; None where this program does not know it.
    """

    def __init__(self, predictor: Predictor, servable: Servable | None) -> None: ...

    #: What the result's bits depend on beside the plan; goes into the manifest.
    about: Mapping[str, Any]

    def check(self, plan: Plan) -> None:
        """Refuse what cannot be done, before anything is written.

        Raises:
            NotSupportedError: why, and what to do.
        """
        ...

    def boundaries(self, plan: Plan, batch_rows: int | None) -> Boundaries:
        """Where batches and parts are to end, if the caller asks for so many rows in a batch, or for none."""
        ...

    def parts(
        self, plan: Plan, done: Mapping[int, Entry], *, start: int, tally: Tally, waiting: Callable[[], None]
    ) -> Generator[Part, None, None]:
        """The parts that are not `done`, from the one that begins at row `start` on.

        Args:
            waiting: To be called now and then while there is no part yet.
        """
        ...


def load_engine(name: str) -> type[Engine]:
    """The engine called `name`.

    Raises:
        InputError: there is none.
        MissingExtraError: it needs packages that are not installed.
    """
    entry = plugins.find(ENGINES, name)
    if entry is None:
        raise InputError(f"There is no engine {name!r}; there are {', '.join(plugins.names(ENGINES))}.")
    kind: type[Engine] = plugins.load(entry)
    return kind
