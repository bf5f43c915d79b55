"""The filters of list methods, as far as they ask for names and labels: `labels.a="b" AND display_name="c"`."""

from __future__ import annotations

import re
from typing import Any

from google.api_core import exceptions as google_errors

_TERM = re.compile(r"""(?P<field>display_name|labels\.[\w-]+)\s*(?P<how>=|:)\s*(?P<value>"[^"]*"|[^\s"]+)""")


def matching(resources: list[Any], text: str) -> list[Any]:
    """The resources that a filter means; all where it is empty.

    Raises:
        InvalidArgument: it asks for something else.
    """
    terms = []
    for part in filter(None, re.split(r"\s+AND\s+", text.strip())):
        match = _TERM.fullmatch(part.strip())
        if match is None:
            raise google_errors.InvalidArgument(f"The stand-in does not understand the filter {part!r}.")
        terms.append((match["field"], match["value"].strip('"')))
    return [one for one in resources if all(_holds(one, field, value) for field, value in terms)]


def _holds(resource: Any, field: str, value: str) -> bool:
    if field == "display_name":
        return bool(resource.display_name == value)
    key = field.removeprefix("labels.")
    return key in resource.labels and value in {"*", resource.labels[key]}
