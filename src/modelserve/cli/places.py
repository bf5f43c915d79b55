"""The commands about deployments and about the runtime's image, with their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

places = typer.Typer()
image_app = typer.Typer(no_args_is_help=True, help="The container image of the runtime, built without Docker.")
places.add_typer(image_app, name="image")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
TargetName = Annotated[
    str | None, typer.Option("--target", "-t", metavar="NAME", help="A configured target, or an installed backend.")
]
DeploymentName = Annotated[
    str, typer.Argument(metavar="NAME_OR_URL", help="A deployment's name at the target, or a server's address.")
]
ModelPath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or a model file.")]
Further = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the backend; may be given again.")
]
Minimum = Annotated[int | None, typer.Option("--minimum", help="At least so many replicas; 0 lets it rest.")]
Maximum = Annotated[int | None, typer.Option("--maximum", help="At most so many replicas.")]
TargetInflight = Annotated[
    float | None, typer.Option("--target-inflight", help="Requests under way per replica to aim at.")
]
TargetCpu = Annotated[float | None, typer.Option("--target-cpu", help="Share of the processors to aim at, 0 to 1.")]
TargetRequests = Annotated[
    float | None, typer.Option("--target-requests-per-minute", help="Requests per replica and minute to aim at.")
]


@places.command()
def deploy(
    bundle: ModelPath,
    *,
    target: TargetName = None,
    name: Annotated[str | None, typer.Option("--name", help="Its name there; by default made of the model.")] = None,
    replicas: Annotated[int | None, typer.Option("--replicas", help="Exactly so many replicas.")] = None,
    minimum: Minimum = None,
    maximum: Maximum = None,
    target_inflight: TargetInflight = None,
    target_cpu: TargetCpu = None,
    target_requests_per_minute: TargetRequests = None,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Longest time that it may take to come up.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return only when it answers.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and touch nothing.")] = False,
    further: Further = None,
    as_json: AsJson = False,
) -> None:
    """Run a model at a target, where it goes on after this command has ended."""
    from modelserve.cli.deployments import deploy, wanted_scale

    bounds = {
        "minimum": minimum,
        "maximum": maximum,
        "target_inflight": target_inflight,
        "target_cpu": target_cpu,
        "target_requests_per_minute": target_requests_per_minute,
    }
    deploy(
        bundle,
        target=target,
        name=name,
        scale=wanted_scale(replicas, bounds),
        timeout_s=timeout_s,
        wait=wait,
        dry_run=dry_run,
        further=further or [],
        in_json=as_json,
    )


@places.command("list")
def list_all(*, target: TargetName = None, further: Further = None, as_json: AsJson = False) -> None:
    """List what modelserve made at a target, or at every configured one."""
    from modelserve.cli.deployments import show_all

    show_all(target=target, further=further or [], in_json=as_json)


@places.command()
def status(
    name: DeploymentName, *, target: TargetName = None, further: Further = None, as_json: AsJson = False
) -> None:
    """Show a deployment and its replicas."""
    from modelserve.cli.deployments import status

    status(name, target=target, further=further or [], in_json=as_json)


@places.command()
def scale(
    name: DeploymentName,
    replicas: Annotated[int | None, typer.Argument(metavar="REPLICAS", help="Exactly so many.")] = None,
    *,
    minimum: Minimum = None,
    maximum: Maximum = None,
    target_inflight: TargetInflight = None,
    target_cpu: TargetCpu = None,
    target_requests_per_minute: TargetRequests = None,
    target: TargetName = None,
    further: Further = None,
    as_json: AsJson = False,
) -> None:
    """Have so many replicas, or as many as are needed between two bounds."""
    from modelserve.cli.deployments import scale, wanted_scale

    bounds = {
        "minimum": minimum,
        "maximum": maximum,
        "target_inflight": target_inflight,
        "target_cpu": target_cpu,
        "target_requests_per_minute": target_requests_per_minute,
    }
    scale(name, wanted_scale(replicas, bounds), target=target, further=further or [], in_json=as_json)


@places.command()
def update(
    name: DeploymentName,
    bundle: ModelPath,
    *,
    target: TargetName = None,
    further: Further = None,
    as_json: AsJson = False,
) -> None:
    """Have a deployment answer with another model; no request fails."""
    from modelserve.cli.deployments import update

    update(name, bundle, target=target, further=further or [], in_json=as_json)


@places.command()
def logs(
    name: DeploymentName,
    *,
    last: Annotated[int | None, typer.Option("--last", metavar="LINES", min=0, help="Only so many lines.")] = None,
    target: TargetName = None,
    further: Further = None,
    as_json: AsJson = False,
) -> None:
    """Print what a deployment's replicas wrote, oldest first."""
    from modelserve.cli.deployments import logs

    logs(name, last=last, target=target, further=further or [], in_json=as_json)


@places.command()
def delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A deployment's name at the target.")],
    *,
    target: TargetName = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    further: Further = None,
    as_json: AsJson = False,
) -> None:
    """Remove a deployment and everything that was made for it, also what a failed one left behind."""
    from modelserve.cli.deployments import delete

    delete(name, target=target, is_agreed=yes, further=further or [], in_json=as_json)


@image_app.command("build")
def image_build(
    *,
    push: Annotated[
        str | None, typer.Option("--push", metavar="REF", help="Push it there: registry/repository, with a tag or not.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Write it there, as an OCI image layout.")
    ] = None,
    platform: Annotated[
        str, typer.Option("--platform", metavar="PLATFORM", help="linux/amd64 or linux/arm64.")
    ] = "linux/amd64",
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="REF", help="What to build on; by default Python 3.12 on Debian."),
    ] = None,
    python: Annotated[
        str | None, typer.Option("--python", metavar="VERSION", help="The base's Python, where it does not say so.")
    ] = None,
    extra: Annotated[
        list[str] | None, typer.Option("--extra", metavar="NAME", help="Another extra of modelserve to put in.")
    ] = None,
    accelerator: Annotated[
        str | None, typer.Option("--accelerator", metavar="KIND", help="Refused: the image is for processors.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build the runtime's image, and push it or write it to a folder."""
    from modelserve.cli.image import build

    build(
        push=push,
        output=output,
        platform=platform,
        base=base,
        python=python,
        extras=extra or [],
        accelerator=accelerator,
        in_json=as_json,
    )
