"""Every command and its options; what they do stands in the file of each command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelserve.cli.places import places

app = typer.Typer(
    name="modelserve",
    help="From a trained model to answers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(no_args_is_help=True, help="What is configured, and where each value came from.")
cache_app = typer.Typer(help="What modelserve keeps under MODELSERVE_HOME.")
app.add_typer(config_app, name="config")
app.add_typer(cache_app, name="cache")
keys_app = typer.Typer(no_args_is_help=True, help="The API keys of a server.")
app.add_typer(keys_app, name="keys")
app.add_typer(places)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a bundle.", show_default=False)]
TargetName = Annotated[
    str | None, typer.Option("--target", "-t", metavar="NAME", help="A configured target, or an installed backend.")
]


def _show_version(is_asked: bool) -> None:  # typer calls it with the flag
    if is_asked:
        from modelserve import __version__

        typer.echo(f"modelserve {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
) -> None:
    """From a trained model to answers."""


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A model file: ONNX, Keras, SavedModel, TorchScript, skops.")
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The folder to make.")],
    example: Annotated[
        Path | None, typer.Option("--example", "-e", metavar="FILE", help="Inputs it takes: .npy, .npz, .csv, .json.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a model portable, and prove that it is still the same model."""
    from modelserve.cli.convert import run

    run(source, output=output, example=example, as_json=as_json)


@app.command()
def optimize(
    bundle: BundlePath,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The folder to make.")],
    quantize: Annotated[
        str | None, typer.Option("--quantize", metavar="PRECISION", help="int8, int8-static, int8-weights, ...")
    ] = None,
    prune: Annotated[float | None, typer.Option("--prune", metavar="SHARE", help="Share of units that goes.")] = None,
    max_drop: Annotated[
        float | None, typer.Option("--max-drop", metavar="DROP", help="Search for the best within this bound.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="Rows by input name, and `labels`: .npz.")
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="What the bound is about, such as accuracy.")] = None,
    goal: Annotated[str, typer.Option("--goal", help="latency, throughput, size or memory.")] = "latency",
    budget: Annotated[float, typer.Option("--budget", metavar="SECONDS", help="Time for the search.")] = 60.0,
    plot: Annotated[
        list[Path] | None, typer.Option("--plot", metavar="FILE", help="Draw the report: .html, or an image.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a bundle smaller or faster, within a bound that is shown to hold."""
    from modelserve.cli.optimize import run

    run(
        bundle,
        output=output,
        quantize=quantize,
        prune=prune,
        max_drop=max_drop,
        data=data,
        metric=metric,
        goal=goal,
        budget_s=budget,
        report=plot or [],
        as_json=as_json,
    )


@app.command()
def inspect(bundle: BundlePath, *, as_json: AsJson = False) -> None:
    """Show what a bundle takes, gives, came from and promises."""
    from modelserve.cli.inspect import run

    run(bundle, as_json=as_json)


@app.command()
def predict(
    model: Annotated[
        str, typer.Argument(metavar="BUNDLE_OR_NAME", help="A bundle's folder, a model file, or a deployment's name.")
    ],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="A file of rows, or - for JSON lines; a pattern, folder or URL of a data set."
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help=".npy, .npz, .csv, .json or .jsonl; a folder for a data set."
        ),
    ] = None,
    outputs: Annotated[
        str | None, typer.Option("--outputs", metavar="NAMES", help="Outputs wanted, separated by commas.")
    ] = None,
    target: TargetName = None,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Longest time to wait for the answer.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="NAMES", help="Data set: columns for the model, by commas.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option("--keep", metavar="NAMES", help="Data set: columns to stand beside the outputs.")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", metavar="KIND", help="Data set: parquet (default), csv, jsonl or npy.")
    ] = None,
    batch_rows: Annotated[
        int | None, typer.Option("--batch-rows", metavar="ROWS", help="Data set: rows of a request; else measured.")
    ] = None,
    max_failures: Annotated[
        int | None, typer.Option("--max-failures", metavar="ROWS", help="Data set: more failed rows end it; else 1000.")
    ] = None,
    cast: Annotated[bool, typer.Option("--cast", help="Data set: floats may be rounded to the model's dtype.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Data set: remove what is there, begin anew.")] = False,
    engine: Annotated[
        str | None,
        typer.Option("--engine", metavar="NAME", help="Data set: batch (default where there is one), local or ray."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="COUNT", help="Data set: worker processes of a bundle.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer the rows of a file, or of a data set into a folder; a bundle is served here for as long as that takes."""
    from modelserve.cli import dataset, predict

    names = _names(outputs)
    given: dict[str, object] = {
        "columns": _names(columns),
        "keep": _names(keep),
        "format": form,
        "batch_rows": batch_rows,
        "max_failures": max_failures,
        "cast": cast or None,
        "restart": restart or None,
        "engine": engine,
    }
    options = {name: value for name, value in given.items() if value is not None}
    if dataset.is_meant(inputs, output):
        options |= {"outputs": names, "timeout_s": timeout_s}
        dataset.run(model, inputs, output, target=target, workers=workers, options=options, as_json=as_json)
    else:
        dataset.check_single(inputs, output, options)
        predict.run(
            model, Path(inputs[0]), output=output, outputs=names, target=target, timeout_s=timeout_s, as_json=as_json
        )


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


@app.command()
def serve(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="A bundle, or a folder of bundles.", show_default=False)
    ] = None,
    *,
    host: Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="PORT", help="Port for HTTP.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="The name under which a bundle is served.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Worker processes of each model.")] = None,
    keys: Annotated[Path | None, typer.Option("--keys", metavar="FILE", help="The API keys that are let in.")] = None,
    further: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of a server.")
    ] = None,
) -> None:
    """Serve a bundle, or a folder of bundles, over HTTP until a signal ends it."""
    from modelserve.cli.serve import run

    given = {"host": host, "port": port, "name": name, "workers": workers, "keys": keys}
    run(bundle, given=given, further=further or [])


KeysPath = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="The file of keys; by default under MODELSERVE_HOME.")
]


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whom it is for.")],
    *,
    file: KeysPath = None,
    scope: Annotated[list[str] | None, typer.Option("--scope", help="predict, metrics or admin.")] = None,
    model: Annotated[list[str] | None, typer.Option("--model", help="The only models that it may use.")] = None,
    days: Annotated[float, typer.Option("--days", help="Days until it expires; 0 for never.")] = 0.0,
    rate: Annotated[float, typer.Option("--rate", help="Requests a second; 0 for no bound.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Make a key, and print it this one time."""
    from modelserve.cli.keys import create

    create(file, name, scopes=scope or ["predict"], models=model or [], days=days, rate=rate, as_json=as_json)


@keys_app.command("list")
def keys_list(*, file: KeysPath = None, as_json: AsJson = False) -> None:
    """List the keys that there are."""
    from modelserve.cli.keys import show

    show(file, as_json=as_json)


@keys_app.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")], *, file: KeysPath = None
) -> None:
    """Let a key open nothing any more."""
    from modelserve.cli.keys import revoke

    revoke(file, key_id)


@config_app.command("show")
def config_show(
    *,
    target: TargetName = None,
    origin: Annotated[bool, typer.Option("--origin", help="Also print where each value came from.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the configuration; secrets stay references."""
    from modelserve.cli.config import show

    show(target, with_origin=origin, as_json=as_json)


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of modelserve.toml, for editors."""
    from modelserve.cli.config import schema

    schema()


@cache_app.callback(invoke_without_command=True)
def cache(context: typer.Context, *, as_json: AsJson = False) -> None:
    """What modelserve keeps under MODELSERVE_HOME."""
    if context.invoked_subcommand is None:
        from modelserve.cli.cache import show

        show(as_json=as_json)


@cache_app.command("show")
def cache_show(*, as_json: AsJson = False) -> None:
    """List what is kept."""
    from modelserve.cli.cache import show

    show(as_json=as_json)


@cache_app.command("clear")
def cache_clear(
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what can be made again; nothing outside of MODELSERVE_HOME, and nothing in it that is not modelserve's."""
    from modelserve.cli.cache import clear

    clear(is_agreed=yes, as_json=as_json)


@app.command()
def rehearse(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A configured target, or an installed backend.")],
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="By default a small model.", show_default=False)
    ] = None,
    *,
    name: Annotated[str, typer.Option("--name", help="The deployment's name.")] = "rehearsal",
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the report as a page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Live a deployment's whole life on this machine: what passes, what the real place would refuse and why."""
    from modelserve.cli.rehearse import run

    run(target, bundle, name=name, html=html, as_json=as_json)


@app.command()
def policy(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A configured target, or an installed backend.")],
    *,
    who: Annotated[str | None, typer.Option("--who", help="Only the document for caller, role, ...")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the least permissions that a target needs."""
    from modelserve.cli.policy import run

    run(target, who=who, as_json=as_json)


@app.command()
def doctor(*, as_json: AsJson = False) -> None:
    """Check this machine: what is installed, what is usable, and what to install for the rest."""
    from modelserve.cli.doctor import run

    run(as_json=as_json)
