"""The shape of `modelserve.toml`: the check of what was read, and the JSON schema for editors."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelserve.config.settings import Key, Settings, dotted, nested
from modelserve.errors import ConfigError

_REPLICAS = Annotated[int, Field(strict=True, ge=0)]
_ABOVE_ZERO = Annotated[float, Field(gt=0)]


class ScaleTable(BaseModel):
    """How many replicas: a fixed size where minimum and maximum are equal, otherwise up to a target."""

    model_config = ConfigDict(extra="forbid", title="Scale")

    minimum: _REPLICAS = Field(1, description="Fewest replicas; 0 rests until a request.")
    maximum: _REPLICAS = Field(description="Most replicas.")
    target_inflight: _ABOVE_ZERO | None = Field(None, description="Requests under way per replica to aim at.")
    target_cpu: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Share of a replica's processors to aim at, 0 to 1."
    )
    target_requests_per_minute: _ABOVE_ZERO | None = Field(
        None, description="Requests per replica and minute to aim at."
    )


class TargetTable(BaseModel):
    """A place to run models, under a name of your own. Keys that are not listed here are the backend's options."""

    model_config = ConfigDict(extra="allow", title="Target")

    backend: Annotated[str, Field(min_length=1)] = Field(
        description="The installed backend that runs it, such as 'local'."
    )
    scale: Annotated[int, Field(strict=True, ge=1)] | ScaleTable | None = Field(
        None, description="Number of replicas, or a table of minimum, maximum and a target."
    )
    optimize: str | None = Field(None, description="A precision by which models are made smaller, such as 'int8'.")


class ConfigFile(BaseModel):
    """Configuration of modelserve: modelserve.toml, or [tool.modelserve] in pyproject.toml."""

    model_config = ConfigDict(extra="forbid", title="modelserve.toml")

    default_target: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="The target of a call that names none; 'local' when left out."
    )
    targets: dict[str, TargetTable] = Field(default_factory=dict, description="Places to run models, by name.")


def check(settings: Settings) -> None:
    """Refuse keys and values that make no sense.

    Raises:
        ConfigError: naming the key, where it was written, and what belongs there.
    """
    try:
        ConfigFile.model_validate(nested(settings))
    except ValidationError as error:
        # The value itself is left out of pydantic's text: it may be a secret in the wrong place.
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        # Where several forms are allowed, the one that fitted furthest is the one that was meant.
        raise ConfigError(_explained(max(problems, key=lambda problem: len(problem["loc"])), settings)) from None


def json_schema() -> str:
    """The JSON schema of the file, as text."""
    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", **ConfigFile.model_json_schema()}
    return json.dumps(content, indent=2) + "\n"


def _explained(problem: Any, settings: Settings) -> str:
    key, kind = _key(problem["loc"], settings), problem["type"]
    where = _where(key, settings)
    if kind == "extra_forbidden":
        table = ScaleTable if "scale" in key else ConfigFile
        return f"{where}: there is no key {key[-1]!r}; the keys are {', '.join(table.model_fields)}."
    if kind == "missing" and key[-1] == "backend":
        return f'{where} is missing: each target names its backend. Add backend = "local" or another installed one.'
    if key[-1] == "scale":
        return f"{where} must be a number of replicas from 1 up, or a table of {', '.join(ScaleTable.model_fields)}."
    return f"{where}: {problem['msg'][0].lower()}{problem['msg'][1:]}. Correct the value."


def _key(location: tuple[int | str, ...], settings: Settings) -> Key:
    """Pydantic's location without the names of the union's branches, which are no keys."""
    branches = {"int", "str", "constrained-int", "ScaleTable", "Scale", "dict[str,any]", "float"}
    parts = [str(part) for part in location]
    return tuple(part for index, part in enumerate(parts) if index < 2 or part not in branches)


def _where(key: Key, settings: Settings) -> str:
    near = next((setting for at, setting in settings.items() if at[: len(key)] == key), None)
    near = near or next((setting for at, setting in settings.items() if at[:2] == key[:2]), None)
    return f"{dotted(key)} ({near.place})" if near is not None and near.place else dotted(key)
