"""`modelserve policy`: the least rights that a target needs, in its cloud's own form."""

from __future__ import annotations

from modelserve.cli.output import print_heading, print_json, print_line
from modelserve.deployment import open_target
from modelserve.errors import InputError


def run(target: str, *, who: str | None, as_json: bool) -> None:
    """Print every document, or the one for `who`."""
    documents = open_target(target).backend.policy()
    if who is not None:
        if who not in documents:
            raise InputError(f"There is no {who!r} in the policy of {target!r}; there are {', '.join(documents)}.")
        print_json(documents[who])
        return
    if as_json:
        print_json(documents)
        return
    for number, (name, document) in enumerate(documents.items()):
        if number:
            print_line("")
        print_heading(name)
        print_json(document)
