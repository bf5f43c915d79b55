"""`python -m modelserve_vertex.rehearsal`: a stand-in until it is told to end, and the target that leads to it.

What it prints belongs into modelserve.toml; the vendor's own tools take its address too.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading

from modelserve_vertex.backend import VertexBackend
from modelserve_vertex.rehearsal import VertexRehearsal


def main() -> int:
    """Stand in until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser("python -m modelserve_vertex.rehearsal", description=__doc__)
    parser.add_argument("--project", default="rehearsed-project")
    parser.add_argument("--region", default="europe-west4")
    parser.add_argument("--endpoint", default="dedicated", help="dedicated, shared, psc or private")
    parser.add_argument("--target", default="prod", help="how the target is to be called")
    told = vars(parser.parse_args())
    target = told.pop("target")
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ending.set())
    with VertexBackend(told).rehearsal() as rehearsal:
        assert isinstance(rehearsal, VertexRehearsal)
        lines = [f"{name} = {json.dumps(value)}" for name, value in rehearsal.options.items() if value is not None]
        sys.stdout.write("\n".join([f"[targets.{target}]", 'backend = "vertex"', *lines, ""]) + "\n")
        sys.stdout.flush()
        ending.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
