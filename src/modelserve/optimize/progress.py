"""How far an optimisation is, for whoever draws a bar."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done now. As text it is a line for people.

    Attributes:
        step: Of `steps`, from 1 on.
        spent: The share of the time budget that is spent; 0 where there is none.
    """

    doing: str
    step: int
    steps: int
    spent: float = 0.0

    @property
    def share(self) -> float:
        """Of everything that is done, 0 to 1; whichever ends first, the steps or the budget."""
        return min(1.0, max((self.step - 1) / self.steps, self.spent))

    def __str__(self) -> str:
        return f"[{self.step}/{self.steps}] {self.doing}"
