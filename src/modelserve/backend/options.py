"""A backend's options, checked: unknown names and wrong values are refused where they are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from modelserve.errors import ConfigError

Kind = TypeVar("Kind", bound="Options")


class Options(BaseModel):
    """What a backend can be told; each field's description is the line that users see."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def described(cls) -> dict[str, str]:
        """Each option's name and meaning."""
        return {name: field.description or "" for name, field in cls.model_fields.items()}


def read_options(kind: type[Kind], backend: str, options: Mapping[str, Any]) -> Kind:
    """The options as `kind` has them.

    Raises:
        ConfigError: one is unknown or has a value that makes no sense; the message names it and what is known.
    """
    unknown = [name for name in options if name not in kind.model_fields]
    if unknown:
        raise ConfigError(
            f"Backend {backend!r} has no option {unknown[0]!r}; it has {', '.join(map(repr, kind.model_fields))}."
        )
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"Backend {backend!r}, option {name!r}: {first['msg']}, got {_shown(first['input'])}."
        ) from None


def _shown(value: Any) -> str:
    """A number as it is, anything else by its kind: text may be a secret."""
    return repr(value) if isinstance(value, bool | int | float) else f"{type(value).__name__}"
