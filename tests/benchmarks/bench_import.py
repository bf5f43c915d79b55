"""How long `import modelserve` takes, against a bare interpreter: medians of interleaved runs.

    python tests/benchmarks/bench_import.py [rounds]

Aim: below 30 ms for the import itself.
"""

import platform
import statistics
import subprocess
import sys
import time

PROGRAMS = {
    "bare python": ["-c", "pass"],
    "import modelserve": ["-c", "import modelserve"],
    "modelserve.Model": ["-c", "import modelserve; modelserve.Model"],
    "import numpy": ["-c", "import numpy"],
    "modelserve --version": ["-m", "modelserve", "--version"],
    "modelserve --help": ["-m", "modelserve", "--help"],
}


def once_ms(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


def measured_ms(rounds: int) -> dict[str, list[float]]:
    """One run of each program a round, so that a busy moment falls on all of them."""
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for turn in range(rounds + 1):
        for name, arguments in PROGRAMS.items():
            taken_ms = once_ms(arguments)
            if turn:  # the first round fills the file cache
                times[name].append(taken_ms)
    return times


def report(rounds: int) -> str:
    times = measured_ms(rounds)
    bare_ms = statistics.median(times["bare python"])
    lines = [f"python {platform.python_version()}, {platform.machine()}, {rounds} interleaved rounds, milliseconds", ""]
    lines += [f"{'program':22}{'median':>8}{'over bare':>11}{'quartiles':>17}"]
    for name, taken in times.items():
        low, middle, high = statistics.quantiles(taken, n=4)
        lines.append(f"{name:22}{middle:8.1f}{middle - bare_ms:11.1f}{f'{low:.1f} to {high:.1f}':>17}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(int(sys.argv[1]) if len(sys.argv) > 1 else 21))
