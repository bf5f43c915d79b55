"""What a batch job does: files mounted, the scoring script run by a driver in processes of its own, outputs uploaded.

    Queued ─► Preparing ─► Running ─► Finalizing ─► Completed
       │                      │  a process of the driver for each instance and concurrent run
       └── CancelRequested ───┴─► Canceled                              └─► Failed

Several jobs run beside each other; each has a folder of its own, which goes with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelserve.standin.faults import Failing, Faults
from modelserve.standin.launch import command
from modelserve_azureml.rehearsal.blobs import HOST, Blobs
from modelserve_azureml.rehearsal.fleets import mounted

_DRIVER = Path(__file__).parent / "batch_driver.py"
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Work:
    """What a deployment and a request say of a job.

    Attributes:
        code: Address of the code's files; `script` is one of them.
        lines, answers: Names of folders of blobs.
        processes: Instances times concurrent runs of each.
    """

    model: str
    model_uri: str
    code: str
    script: str
    lines: str
    answers: str
    processes: int
    mini_batch_size: int
    retries: int
    timeout_s: float
    error_threshold: int
    environment: Mapping[str, str]


class ScoringJob:
    """One job, in a thread. `told` hears each of its states."""

    def __init__(self, name: str, work: Work, blobs: Blobs, faults: Faults, told: Callable[[str], None]) -> None:
        self.name = name
        self._work = work
        self._blobs = blobs
        self._faults = faults
        self._told = told
        self._cancelled = threading.Event()
        self._folder = Path(tempfile.mkdtemp(prefix="modelserve-azure-job-"))
        self._thread = threading.Thread(target=self._run, name=f"azure-job-{name}", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Stop it; returns when it has ended."""
        self._cancelled.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            state = self._ended()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._told(state)

    def _ended(self) -> str:
        self._told("Queued")
        if self._cancelled.wait(self._faults.switches.start_delay_s):
            return "Canceled"
        if isinstance(self._faults.meet("Batch.Run"), Failing):
            return "Failed"
        self._told("Preparing")
        files, environment = self._mounted()
        self._told("Running")
        statuses = self._driven(files, environment)
        if self._cancelled.is_set():
            return "Canceled"
        self._told("Finalizing")
        self._upload(files)
        # The driver itself gives up at the first failure that is too many; -1 lets all of them pass.
        return "Failed" if any(statuses) and self._work.error_threshold >= 0 else "Completed"

    def _mounted(self) -> tuple[list[Path], dict[str, str]]:
        work, folder = self._work, self._folder
        model = mounted(self._blobs, folder, work.model, work.model_uri, [])
        if self._faults.switches.crash_at_start:
            shutil.rmtree(model)
        self._download(work.code.removeprefix(f"https://{HOST}/"), folder / "code")
        files = self._download(work.lines, folder / "lines")
        for place in ("answers", "tmp"):
            (folder / place).mkdir()
        told = {"AZUREML_MODEL_DIR": str(model), "AZUREML_BI_OUTPUT_PATH": str(folder / "answers")}
        # What a script leaves there goes with its machine.
        told["TMPDIR"] = str(folder / "tmp")
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return files, {**kept, **work.environment, **told}

    def _download(self, prefix: str, into: Path) -> list[Path]:
        files = []
        for name, content in self._blobs.below(f"{prefix}/"):
            file = into / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            files.append(file)
        return sorted(files)

    def _driven(self, files: Sequence[Path], environment: Mapping[str, str]) -> list[int]:
        """The exit statuses of the driver's processes."""
        work, count = self._work, self._work.processes
        script = self._folder / "code" / work.script
        driver = [sys.executable, str(_DRIVER), str(script)]
        driver += [str(work.mini_batch_size), str(work.retries), str(work.timeout_s)]
        running = [
            subprocess.Popen(  # noqa: S603  # the script that was uploaded, as the service runs it
                command(None, "", [*driver, *some]),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            for some in ([str(file) for file in files[start::count]] for start in range(count))
            if some
        ]
        while any(process.poll() is None for process in running) and not self._cancelled.wait(_LOOK_S):
            pass
        for process in running:
            # What a script started ends with it, as with its machine.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return [process.wait() for process in running]

    def _upload(self, files: Sequence[Path]) -> None:
        for file in sorted((self._folder / "answers").iterdir()):
            self._blobs.put(f"{self._work.answers}/{file.name}", file.read_bytes())
        summary = "".join(f"{file.name}\n" for file in files)
        self._blobs.put(f"{self._work.answers}/predictions.csv", summary.encode())
