"""The command line: a thin skin over what `import modelserve` offers.

Exit status: 0 done, 1 failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from modelserve.errors import (
    BundleError,
    ConfigError,
    ExampleRequiredError,
    InputError,
    ModelServeError,
    ResumeError,
    SourceError,
    UnknownBackendError,
    UnsupportedSourceError,
)

_BAD_INPUT = (
    InputError,
    ConfigError,
    BundleError,
    UnknownBackendError,
    UnsupportedSourceError,
    ExampleRequiredError,
    SourceError,
    ResumeError,
    FileNotFoundError,
    IsADirectoryError,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Wherever it stands, since it is usually added to the end of a line that failed.
    is_debug = "--debug" in given
    try:
        _run([argument for argument in given if argument != "--debug"])
    except BrokenPipeError:
        # Whoever read our output (head, less) has gone; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # the one place of this process that answers for every failure
        if is_debug:
            raise
        sys.exit(_reported(error))


def _run(arguments: list[str]) -> None:
    from modelserve.cli.app import app

    app(arguments, prog_name="modelserve")


def _reported(error: Exception) -> int:
    from modelserve.cli.output import print_error

    if isinstance(error, ModelServeError | OSError):
        print_error(str(error))
    else:
        print_error(f"{type(error).__name__}: {error}. This is a fault of modelserve; --debug shows where.")
    return 2 if isinstance(error, _BAD_INPUT) else 1
