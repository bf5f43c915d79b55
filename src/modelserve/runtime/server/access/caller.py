"""Who asks, and what they were granted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from modelserve.errors import AccessDeniedError
from modelserve.runtime.server.http.messages import Request
from modelserve.runtime.server.routes import Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who was recognised.

    Attributes:
        name: For the record; never a secret.
        models: The models they may ask; None for all.
        rate_per_s: Requests a second they may send; None for no bound.
    """

    name: str
    scopes: frozenset[Scope]
    models: frozenset[str] | None = None
    rate_per_s: float | None = None

    def may(self, scope: Scope) -> bool:
        """Whether they may do this. Whoever administers may do everything."""
        return scope is Scope.OPEN or scope in self.scopes or Scope.ADMIN in self.scopes

    def knows(self, model: str) -> bool:
        """Whether they may use, and hear of, this model."""
        return self.models is None or model in self.models


#: Somebody in a place where nobody is asked who they are.
ANYBODY = Caller("anonymous", frozenset(Scope))


class Authority(Protocol):
    """What recognises callers by what they show."""

    def recognise(self, credential: str) -> Caller | None:
        """Who shows this; None where it is not known here."""
        ...


def require_model(request: Request, name: str) -> None:
    """Refuse a caller without a grant for this model.

    Raises:
        AccessDeniedError: naming the model.
    """
    caller: Caller | None = request.caller
    if caller is not None and not caller.knows(name):
        raise AccessDeniedError(f"This key may not use model {name!r}. Ask with one that was granted it.")
