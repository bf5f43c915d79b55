"""A fuzzer over everything that reads bytes from the network; ends with an error at the first input that breaks it.

    python tests/property/fuzz_wire.py --seconds 600

Guided by what of the code each input reaches (atheris, `pip install atheris`); begins with messages that are read.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["modelserve"]):
    from modelserve.testing import noise

_NAMES = list(noise.READERS)


def main() -> None:
    """Search for so many seconds, and say how many inputs were tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    seconds = parser.parse_args().seconds
    tried, taken, start = 0, 0, time.monotonic()

    def one(content: bytes) -> None:
        nonlocal tried, taken
        tried += 1
        if content:
            taken += noise.refused_or_read(_NAMES[content[0] % len(_NAMES)], content[1:])
        if tried % 100_000 == 0:
            print(f"{tried} inputs in {time.monotonic() - start:.0f} s, {taken} of them read", flush=True)

    with tempfile.TemporaryDirectory() as corpus:
        for number, (reader, content) in enumerate(noise.seeds()):
            Path(corpus, str(number)).write_bytes(bytes([_NAMES.index(reader)]) + content)
        atheris.Setup(
            [
                sys.argv[0],
                corpus,
                f"-max_total_time={seconds}",
                "-max_len=2048",
                "-print_final_stats=1",
                f"-artifact_prefix={corpus}/",
            ],
            one,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
