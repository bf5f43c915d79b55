"""`modelserve doctor`: what is usable here, and what to install for the rest.

Checked by doing where that is quick (a model is run, a folder is written to), by metadata where it is not: no framework
is imported.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

import typer
from rich.text import Text

from modelserve.cli.output import BAD, GOOD, POOR, QUIET, print_grid, print_heading, print_json, print_line, size
from modelserve.cli.packages import frameworks, missing_requirements, version_of
from modelserve.errors import ModelServeError


class Verdict(Enum):
    """What a check found."""

    GOOD = "ok"
    ABSENT = "missing"
    BROKEN = "broken"
    FACT = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. `remedy` says what to do when it is not good."""

    section: str
    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


_STYLES = {Verdict.GOOD: GOOD, Verdict.ABSENT: POOR, Verdict.BROKEN: BAD, Verdict.FACT: QUIET}


def run(*, as_json: bool) -> None:
    """Check everything; the exit status is 1 when something that is installed does not work."""
    findings = [*_machine(), *_base(), *_backends(), *_frameworks()]
    broken = [finding for finding in findings if finding.verdict is Verdict.BROKEN]
    if as_json:
        listed = [{**asdict(finding), "verdict": finding.verdict.value or "fact"} for finding in findings]
        print_json({"healthy": not broken, "findings": listed})
    else:
        _print(findings, broken)
    if broken:
        raise typer.Exit(1)


def _print(findings: list[Finding], broken: list[Finding]) -> None:
    names = dict.fromkeys(finding.section for finding in findings)
    print_grid({name: [_row(finding) for finding in findings if finding.section == name] for name in names})
    print_line("")
    if broken:
        print_heading(f"Broken: {', '.join(finding.name for finding in broken)}")
    else:
        print_heading("Everything that is installed works.")


def _row(finding: Finding) -> list[str | Text]:
    style = _STYLES[finding.verdict]
    return [f"  {finding.name}", Text(finding.verdict.value, style), finding.found, Text(finding.remedy, style)]


def _machine() -> Iterator[Finding]:
    from modelserve.runtime import usable_cores

    section = "Machine"
    yield Finding(section, "platform", Verdict.FACT, f"{platform.system()} {platform.machine()}")
    yield Finding(section, "python", Verdict.FACT, f"{platform.python_version()} ({sys.executable})")
    cores, all_cores = usable_cores(), os.cpu_count() or 1
    limited = f" of {all_cores}, limited by affinity or control group" if cores < all_cores else ""
    yield Finding(section, "processors", Verdict.FACT, f"{cores}{limited}")
    yield from _memory(section)
    if sys.platform != "linux":
        what = "shared memory without a name is Linux only; this platform is experimental"
        yield Finding(section, "shared memory", Verdict.FACT, what)
    elif hasattr(os, "memfd_create"):
        yield _tried(section, "shared memory", _try_memfd)


def _memory(section: str) -> Iterator[Finding]:
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        text = path.read_text().strip() if path.is_file() else "max"
        if text.isdigit() and int(text) < 1 << 60:
            yield Finding(section, "memory limit", Verdict.FACT, f"{size(int(text))} by the control group")
            return


def _base() -> Iterator[Finding]:
    section = "modelserve"
    yield Finding(section, "version", Verdict.FACT, version_of("modelserve") or "not installed as a package")
    for name in missing_requirements("modelserve"):
        yield Finding(section, name, Verdict.BROKEN, "missing", f"pip install {name}")
    yield _tried(section, "onnxruntime", _try_model)
    yield _tried(section, "home", _try_home)
    yield _tried(section, "configuration", _try_config)


def _backends() -> Iterator[Finding]:
    from modelserve import plugins
    from modelserve.backend import load_backend
    from modelserve.errors import MissingExtraError

    for name in plugins.names(plugins.BACKENDS):
        try:
            kind = load_backend(name)
        except MissingExtraError as error:
            yield Finding("Backends", name, Verdict.ABSENT, "its packages are missing", _last_sentence(error))
        except Exception as error:  # noqa: BLE001  # a plug-in of anyone's may raise anything when it is imported
            found = f"{type(error).__name__}: {error}"
            yield Finding("Backends", name, Verdict.BROKEN, found, "Reinstall the package that offers it.")
        else:
            yield Finding("Backends", name, Verdict.GOOD, kind.__module__.partition(".")[0])


def _frameworks() -> Iterator[Finding]:
    section = "Frameworks"
    for framework in frameworks():
        if framework.version is None:
            remedy = f'pip install {framework.package} "modelserve[{framework.extra}]"'
            yield Finding(section, framework.name, Verdict.ABSENT, "", remedy)
        elif framework.missing:
            lacks = f"{framework.version}, without {', '.join(framework.missing)} to convert it"
            yield Finding(
                section, framework.name, Verdict.ABSENT, lacks, f'pip install "modelserve[{framework.extra}]"'
            )
        else:
            yield Finding(section, framework.name, Verdict.GOOD, framework.version)


def _tried(section: str, name: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(section, name, Verdict.GOOD, attempt())
    except ModelServeError as error:
        return Finding(section, name, Verdict.BROKEN, str(error))
    except Exception as error:  # noqa: BLE001  # a broken installation may raise anything, and finding that out is the point
        return Finding(section, name, Verdict.BROKEN, f"{type(error).__name__}: {error}", "Reinstall modelserve.")


def _try_model() -> str:
    import numpy as np
    from onnx import TensorProto, helper

    from modelserve.session import load

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "check", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (answer,) = load(model.SerializeToString()).run(["y"], {"x": np.ones(2, np.float32)})
    if answer.tolist() != [-1.0, -1.0]:
        raise RuntimeError(f"a model that negates answered {answer.tolist()} to [1, 1]")
    return f"{version_of('onnxruntime')} runs a model"


def _try_home() -> str:
    import tempfile

    from modelserve.home import home

    home().mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=home(), prefix=".doctor-"):
        return str(home())


def _try_config() -> str:
    from modelserve.config import load_config

    config = load_config()
    names = ", ".join(config.target_names) or "the implied target 'local'"
    return f"{config.file or 'no file'}: {names}"


def _try_memfd() -> str:
    descriptor = os.memfd_create("modelserve-doctor")
    try:
        os.ftruncate(descriptor, 1 << 20)
    finally:
        os.close(descriptor)
    return "without a name (memfd)"


def _last_sentence(error: Exception) -> str:
    return str(error).rpartition(": ")[2]
