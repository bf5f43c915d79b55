"""What a request asks of a model, whatever the format that it came in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from modelserve import wire
from modelserve.errors import WireError
from modelserve.tensors import Array, Checked, Signature

_LONGEST_S = 3600.0

T = TypeVar("T")


class Described(Protocol):
    """What a format needs to know of a model."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def signature(self) -> Signature: ...

    @property
    def digest(self) -> str: ...


class Question(NamedTuple, Generic[T]):
    """One request to the workers, and how its answer is written.

    Attributes:
        answer: Makes the response of the workers' reply.
        timeout_s: What the client allows; None where it does not say.
    """

    message: wire.Message
    rows: int
    answer: Callable[[wire.Reply], T]
    timeout_s: float | None = None


def question(
    checked: Checked,
    outputs: tuple[str, ...],
    write: Callable[[dict[str, Array]], T],
    timeout_s: float | None = None,
    *,
    is_alone: bool = False,
) -> Question[T]:
    """The question for inputs that fit.

    Args:
        outputs: By name; an empty tuple asks for the primary one.
        write: Makes the response of the answer's tensors by name.
        is_alone: As in `wire.Layout`.
    """
    message = wire.encode_request(checked.tensors, outputs, is_alone=is_alone)
    return Question(message, checked.rows, lambda reply: write(tensors(reply)), timeout_s)


def tensors(reply: wire.Reply) -> dict[str, Array]:
    """The tensors of a reply by name."""
    return wire.decode(wire.reply_layout(reply.header), reply.body)


def is_as_it_came(arrays: Mapping[str, Array], checked: Checked, signature: Signature) -> bool:
    """Whether the model is given its only input just as it was sent, so that other values would fit as well."""
    if len(arrays) != 1 or len(signature.inputs) != 1:
        return False
    (spec,), (array,) = signature.inputs, arrays.values()
    return checked.tensors.get(spec.name) is array and not checked.single and array.dtype.kind != "O"


def known_outputs(signature: Signature, names: Sequence[str]) -> tuple[str, ...]:
    """The names, if the model has them all and each is asked for once.

    Raises:
        SignatureError, WireError: which one is not known, or is there twice.
    """
    found = tuple(signature.output(name).name for name in names)
    if len(set(found)) != len(found):
        raise WireError(f"Each output can be asked for once, got {list(found)}.")
    return found


def bounded_timeout_s(seconds: float, what: str) -> float:
    """A time that a client asked for.

    Raises:
        WireError: it is no time.
    """
    if not 0 < seconds <= _LONGEST_S:
        raise WireError(f"{what} must be above 0 and at most {_LONGEST_S:.0f} seconds, got {seconds!r} seconds.")
    return seconds
