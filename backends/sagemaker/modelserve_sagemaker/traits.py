"""What AWS's own service model says of a request and botocore does not check: patterns, maxima, enums.

The model ships with botocore and grows old with it: strict in tests and at the stand-in, a hint before a real call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import botocore.session
import regex

#: What the models write and no engine of Python reads, beside what it means.
_REWRITTEN = ((r"\z", r"\Z"), (r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF"))
#: The same for classes, which stand alone or between brackets.
_CLASSES = ((r"\p{Print}", r"\x20-\x7e"), (r"\p{ASCII}", r"\x00-\x7f"))
_BRACKETED = regex.compile(r"\[(?:[^\]\\]|\\.)*\]")
_NUMBERS = {"integer", "long", "float", "double"}


@lru_cache(maxsize=8)
def service_model(service: str) -> Any:
    """The model of a service, as this botocore has it."""
    return botocore.session.get_session().get_service_model(service)


def is_known(enumeration: str, value: str) -> bool:
    """Whether it is among the values of one of SageMaker's enumerations, as this botocore knows them."""
    return value in service_model("sagemaker").shape_for(enumeration).enum


def problems(service: str, operation: str, request: Mapping[str, Any]) -> list[str]:
    """What the service would refuse, by the path of the member."""
    shape = service_model(service).operation_model(operation).input_shape
    return [] if shape is None else list(_walked(shape, request, operation))


def _walked(shape: Any, value: Any, path: str) -> Iterator[str]:
    if shape.type_name == "structure":
        yield from _structure(shape, value, path)
    else:
        yield from _sized(shape, value, path)
    if shape.type_name == "string":
        yield from _string(shape, value, path)
    elif shape.type_name == "list":
        for index, item in enumerate(value):
            yield from _walked(shape.member, item, f"{path}[{index}]")
    elif shape.type_name == "map":
        for key, item in value.items():
            yield from _walked(shape.key, key, f"{path}<key>")
            yield from _walked(shape.value, item, f"{path}[{key}]")


def _structure(shape: Any, value: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in shape.required_members:
        if name not in value:
            yield f"{path}.{name} is missing"
    for name, item in value.items():
        if name not in shape.members:
            yield f"{path}.{name} is unknown"
        else:
            yield from _walked(shape.members[name], item, f"{path}.{name}")


def _sized(shape: Any, value: Any, path: str) -> Iterator[str]:
    lowest, highest = shape.metadata.get("min"), shape.metadata.get("max")
    size = value if shape.type_name in _NUMBERS else len(value) if hasattr(value, "__len__") else None
    if size is None:
        return
    if (lowest is not None and size < lowest) or (highest is not None and size > highest):
        yield f"{path}: {size} is outside {lowest}..{highest}"


def _string(shape: Any, value: str, path: str) -> Iterator[str]:
    pattern = shape.metadata.get("pattern")
    if pattern and not _compiled(pattern).fullmatch(value):
        yield f"{path}: {value!r} does not match {pattern}"
    if shape.enum and value not in shape.enum:
        yield f"{path}: {value!r} is none of the {len(shape.enum)} values known"


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    for written, meant in _REWRITTEN:
        pattern = pattern.replace(written, meant)
    for written, meant in _CLASSES:
        pattern = _BRACKETED.sub(lambda found, a=written, b=meant: found[0].replace(a, b), pattern)
        pattern = pattern.replace(written, f"[{meant}]")
    return regex.compile(pattern)
