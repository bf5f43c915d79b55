"""`modelserve deploy, list, status, scale, update, logs, delete`: deployments at any target, and running servers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import typer

from modelserve import Deployment, Model, Scale
from modelserve.backend import Backend, Capability, EndpointStatus, State, Support, Verdict
from modelserve.cli.endpoints import print_endpoint, print_endpoints, print_plan
from modelserve.cli.output import print_error, print_json, print_line, reporting, working
from modelserve.config import load_config
from modelserve.config.sources import value_of
from modelserve.deployment import attach_at, implied_target, open_target
from modelserve.errors import ConfigError, InputError, ModelServeError
from modelserve.model import DryRun


def deploy(
    source: Path,
    *,
    target: str | None,
    name: str | None,
    scale: Scale | None,
    timeout_s: float | None,
    wait: bool,
    dry_run: bool,
    further: Sequence[str],
    in_json: bool,
) -> None:
    """Serve a model at a target, or show what that would do."""
    if not source.exists():
        raise FileNotFoundError(f"There is no bundle or model file {str(source)!r}.")
    opened = open_target(target, command_line=divided(further))
    _check_that_it_stays(opened.backend)
    serve = partial(Model(source).serve_at, opened, name=name, scale=scale, timeout_s=timeout_s, wait=wait)
    if dry_run:
        with working(f"Looking at {opened.target.name}"):
            plan = serve(dry_run=True, on_progress=_quiet)
        assert isinstance(plan, DryRun)
        print_plan(plan, in_json=in_json)
        if any(finding.verdict is Verdict.REFUSED for finding in plan.findings):
            raise typer.Exit(1)
        return
    with reporting(f"Deploying {source}") as on_progress:
        deployment = serve(on_progress=on_progress)
    assert isinstance(deployment, Deployment)
    with deployment:
        print_endpoint(deployment.status(), in_json=in_json)


def show_all(*, target: str | None, further: Sequence[str], in_json: bool) -> None:
    """List what modelserve made at a target, or at every configured one."""
    config = load_config()
    targets = [target] if target is not None else config.target_names or [str(config.default_target.value)]
    found: list[tuple[str, EndpointStatus]] = []
    refused: list[str] = []
    for name in targets:
        try:
            with working(f"Asking {name}"):
                statuses = open_target(name, command_line=divided(further)).backend.list()
            found += [(name, status) for status in statuses]
        except ModelServeError as error:
            # One target that cannot be asked keeps nothing of the others back.
            if target is not None:
                raise
            refused.append(f"Target {name!r}: {error}")
    print_endpoints(found, in_json=in_json)
    for line in refused:
        print_error(line)
    if refused:
        raise typer.Exit(1)


def status(name: str, *, target: str | None, further: Sequence[str], in_json: bool) -> None:
    """Show one deployment; the exit status is 1 when it has failed."""
    with _attached(name, target, further) as deployment, working(f"Asking {name}"):
        found = deployment.status()
    print_endpoint(found, in_json=in_json)
    if found.state is State.FAILED:
        raise typer.Exit(1)


def scale(name: str, wanted: Scale | None, *, target: str | None, further: Sequence[str], in_json: bool) -> None:
    """Have this many replicas, and show them."""
    if wanted is None:
        raise InputError("scale needs a number of replicas, or --maximum. Write: modelserve scale NAME 4")
    with _attached(name, target, further) as deployment:
        with working(f"Scaling {name}"):
            deployment.scale(wanted)
        found = deployment.status()
    print_endpoint(found, in_json=in_json)


def update(name: str, source: Path, *, target: str | None, further: Sequence[str], in_json: bool) -> None:
    """Answer with another model from now on."""
    if not source.exists():
        raise FileNotFoundError(f"There is no bundle or model file {str(source)!r}.")
    with _attached(name, target, further) as deployment:
        with working(f"Updating {name}"):
            deployment.update(Model(source))
        found = deployment.status()
    print_endpoint(found, in_json=in_json)


def logs(name: str, *, last: int | None, target: str | None, further: Sequence[str], in_json: bool) -> None:
    """Print what its replicas wrote."""
    with _attached(name, target, further) as deployment, working(f"Asking {name}"):
        lines = deployment.logs()
    lines = lines if last is None else lines[len(lines) - min(last, len(lines)) :]
    if in_json:
        print_json(lines)
        return
    for line in lines:
        print_line(line)


def delete(name: str, *, target: str | None, is_agreed: bool, further: Sequence[str], in_json: bool) -> None:
    """Remove a deployment and what was left behind of it."""
    if target is None and name.startswith(("http://", "https://")):
        raise InputError(f"{name!r} is a server. Name the target whose server it is: modelserve delete NAME --target T")
    opened = open_target(target, command_line=divided(further))
    if not is_agreed:
        _ask(f"Delete {name!r} and everything that was made for it at target {opened.target.name!r}?")
    with working(f"Deleting {name}"):
        opened.backend.delete(name)
    if in_json:
        print_json({"name": name, "target": opened.target.name, "deleted": True})
    else:
        print_line(f"Nothing of {name!r} is left at target {opened.target.name!r}.")


def divided(further: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE pairs as options of a backend.

    Raises:
        ConfigError: one is no such pair.
    """
    pairs = [pair.partition("=") for pair in further]
    for name, found, value in pairs:
        if not name or not found:
            raise ConfigError(f"--set takes NAME=VALUE with an option of the backend, got {name + found + value!r}.")
    return {name.replace("-", "_"): value_of(value) for name, _, value in pairs}


def wanted_scale(replicas: int | None, bounds: Mapping[str, Any]) -> Scale | None:
    """The replicas that a command line asks for; None where it says nothing.

    Raises:
        InvalidScaleError: they make no sense.
    """
    given = {name: value for name, value in bounds.items() if value is not None}
    if replicas is None and not given:
        return None
    if replicas is not None:
        if given:
            raise InputError("Give a number of replicas, or bounds and a target between them; not both.")
        return Scale.fixed(replicas)
    if "maximum" not in given:
        raise InputError("Bounds need --maximum. Write: --minimum 1 --maximum 8 --target-inflight 4")
    return Scale(**{"minimum": 1, **given})


@contextmanager
def _attached(name: str, target: str | None, further: Sequence[str]) -> Iterator[Deployment]:
    with working(f"Finding {name}"):
        opened = open_target(target or implied_target(name), command_line=divided(further))
        deployment = attach_at(opened, name)
    with deployment:
        yield deployment


def _check_that_it_stays(backend: Backend) -> None:
    if backend.supports(Capability.ATTACH) is Support.IMPOSSIBLE:
        raise InputError(
            f"What is deployed on backend {backend.name!r} ends with the program that deployed it, and this command "
            "ends now. Run: modelserve serve BUNDLE, or name another --target."
        )


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise InputError(f"{question} There is no terminal to ask at; add --yes.")
    typer.confirm(question, abort=True)


def _quiet(_line: str) -> None:
    """The plan is printed when it is whole."""
