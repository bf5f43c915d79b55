"""wrk as the benchmarks use it: one body, so many connections, so many seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_SCRIPT = """
wrk.method = "POST"
local file = io.open(os.getenv("WRK_BODY"), "rb")
wrk.body = file:read("*a")
file:close()
for pair in string.gmatch(os.getenv("WRK_HEADERS"), "[^\\n]+") do
  local name, value = string.match(pair, "([^:]+): (.*)")
  wrk.headers[name] = value
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("FOUND %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


class Load(NamedTuple):
    """What one run of wrk found. Times in microseconds; `failed` counts answers other than 2xx and 3xx, and none."""

    requests_per_s: float
    p50_us: int
    p99_us: int
    failed: int


def load(url: str, body: bytes, headers: Mapping[str, str], *, connections: int, seconds: int) -> Load:
    """POST `body` over and over, with one thread."""
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("These benchmarks need wrk. Install it (on Debian: apt install wrk).")
    with tempfile.TemporaryDirectory() as folder:
        body_file, script = Path(folder, "body"), Path(folder, "script.lua")
        body_file.write_bytes(body)
        script.write_text(_SCRIPT)
        given = "\n".join(f"{name}: {value}" for name, value in headers.items())
        found = subprocess.run(
            [program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script), url],
            env={**os.environ, "WRK_BODY": str(body_file), "WRK_HEADERS": given},
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + 60,
        ).stdout
    line = next(line for line in found.splitlines() if line.startswith("FOUND"))
    requests, duration_us, p50, p99, failed = map(int, line.split()[1:])
    return Load((requests - failed) / (duration_us / 1e6), p50, p99, failed)
