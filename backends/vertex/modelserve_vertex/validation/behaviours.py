"""Which fields a request must have and must not have, as the installed library's own documentation of its types says.

The library's descriptors carry no annotations; the docstrings do: "Required.", "Output only.", "Immutable.".
Reading them there keeps the check in step with whatever version is installed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Any

from google.cloud import aiplatform_v1 as v1

PACKAGE = "google.cloud.aiplatform.v1."


class Behaviour(Enum):
    """What the API does with a field; the values are the words of the documentation."""

    REQUIRED = "Required"
    OPTIONAL = "Optional"
    IMMUTABLE = "Immutable"
    OUTPUT_ONLY = "Output only"
    INPUT_ONLY = "Input only"
    IDENTIFIER = "Identifier"


_FIELD = re.compile(r"^(?P<indent> +)(?P<name>\w+) \(.*$")
_LEADING = re.compile(rf"\s*(?P<word>{'|'.join(one.value for one in Behaviour)})\.")


@cache
def behaviours(full_name: str) -> Mapping[str, frozenset[Behaviour]]:
    """By field of the message `full_name`; nothing for a message of another package."""
    message = _classes().get(full_name)
    if message is None:
        return {}
    return {name: frozenset(_leading(text)) for name, text in _documented(message)}


def required(full_name: str) -> list[str]:
    """The fields that a message of this name must have."""
    return [name for name, found in behaviours(full_name).items() if Behaviour.REQUIRED in found]


def output_only(full_name: str) -> list[str]:
    """The fields that only the service writes."""
    return [name for name, found in behaviours(full_name).items() if Behaviour.OUTPUT_ONLY in found]


@cache
def resource_patterns() -> Mapping[str, re.Pattern[str]]:
    """By kind of resource: what its names look like, from the clients' own `*_path` functions."""
    found = {"location": re.compile(r"projects/[^/]+/locations/[^/]+")}
    for client in (v1.ModelServiceClient, v1.EndpointServiceClient, v1.JobServiceClient):
        for name, path in inspect.getmembers(client, inspect.isfunction):
            if (
                name.endswith("_path")
                and hasattr(client, f"parse_{name}")
                and not name.startswith(("parse_", "common_"))
            ):
                found.setdefault(name.removesuffix("_path"), _pattern(path))
    return found


def _pattern(path: Any) -> re.Pattern[str]:
    """A `*_path` function filled with what is in no name, then anything in its stead."""
    hole = "\0"
    filled = path(*[hole for _ in inspect.signature(path).parameters])
    return re.compile(re.escape(filled).replace(re.escape(hole), "[^/]+"))


@cache
def _classes() -> Mapping[str, Any]:
    """The library's class of each message, by the message's full name."""
    found: dict[str, Any] = {}
    for kind in vars(v1.types).values():
        found |= dict(_with_inner(kind))
    return found


def _with_inner(kind: Any) -> Iterator[tuple[str, Any]]:
    if not inspect.isclass(kind) or not hasattr(kind, "pb"):
        return
    yield kind.pb().DESCRIPTOR.full_name, kind
    for name, inner in vars(kind).items():
        if not name.startswith("_"):
            yield from _with_inner(inner)


def _documented(message: Any) -> Iterator[tuple[str, str]]:
    """Each field's name and the text about it."""
    _, found, attributes = (message.__doc__ or "").partition("Attributes:")
    if not found:
        return
    indent, name, text = None, "", ""
    for line in attributes.splitlines():
        match = _FIELD.match(line)
        if match and indent in {None, match["indent"]}:
            if name:
                yield name, text
            indent, name, text = match["indent"], match["name"], ""
        else:
            text += " " + line.strip()
    if name:
        yield name, text


def _leading(text: str) -> Iterator[Behaviour]:
    # A long type runs over into the text: "(MutableMapping[...,\n ...]):" ends before the words begin.
    rest = text.partition("):")[2] if re.match(r"\s*[\w.\]\[, ]*\):", text) else text
    while match := _LEADING.match(rest):
        yield Behaviour(match["word"])
        rest = rest[match.end() :]
