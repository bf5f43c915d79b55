"""`python -m modelserve.runtime [serve]`: a container's entry point. Settings by arguments and by environment.

The same as `modelserve serve`, without the packages that only people at a terminal need.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal ends it; returns the exit status."""
    from modelserve.errors import ConfigError
    from modelserve.runtime.server import read_settings
    from modelserve.runtime.server.contracts import detect
    from modelserve.runtime.server.process import run

    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        contract = detect(os.environ, given)
        settings = read_settings(_parsed(given), os.environ, contract)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return run(settings, contract)


def _parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """The arguments by field; checked by the settings themselves."""
    from modelserve.runtime.server import ServerSettings

    parser = argparse.ArgumentParser("python -m modelserve.runtime", description=__doc__)
    # What SageMaker gives to every container.
    parser.add_argument("command", nargs="?", choices=["serve"], help="Serve; what it does anyway.")
    for name, field in ServerSettings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            parser.add_argument(flag, action="store_true", default=None, help=field.description)
        else:
            parser.add_argument(flag, metavar="VALUE", help=field.description)
    found = vars(parser.parse_args(list(arguments)))
    found.pop("command")
    return found


if __name__ == "__main__":
    sys.exit(main())
