"""`modelserve inspect`: what a bundle says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from modelserve.bundle import Bundle
from modelserve.cli.optimization_report import print_optimization
from modelserve.cli.output import BAD, GOOD, print_heading, print_json, print_line, print_pairs, print_table, size
from modelserve.tensors import Signature, TensorSpec

_MOST_COLUMNS_SHOWN = 6


def run(path: Path, *, as_json: bool) -> None:
    """Open and check a bundle, and show it."""
    print_bundle(Bundle.open(path), as_json=as_json)


def print_bundle(bundle: Bundle, *, as_json: bool) -> None:
    """Show a bundle."""
    if as_json:
        manifest = json.loads(bundle.manifest.to_json())
        print_json({"path": str(bundle.path.absolute()), "size_bytes": bundle.size_bytes, **manifest})
        return
    manifest = bundle.manifest
    versions = ", ".join(f"{name} {version}" for name, version in manifest.origin.versions.items())
    print_heading(manifest.origin.type or "Model", str(bundle.path))
    print_line("")
    print_pairs(
        {
            "digest": manifest.digest,
            "size": size(bundle.size_bytes),
            "source": f"{manifest.origin.framework}{f' ({versions})' if versions else ''}",
            "steps": " → ".join(_step(step.name, step.settings) for step in manifest.lineage) or "none",
            "rows": "independent of each other" if manifest.rows_independent else "answered together, never joined",
        }
    )
    print_line("")
    print_table(["", "name", "type", "notes"], _tensors(bundle.signature))
    for report in manifest.reports:
        print_line("")
        _print_report(report)


def _tensors(signature: Signature) -> list[list[str | Text]]:
    rows: list[list[str | Text]] = [["input", spec.name, str(spec), _input_notes(spec)] for spec in signature.inputs]
    for spec in signature.outputs:
        is_primary = spec.name == signature.primary
        rows.append(["output", spec.name, str(spec), Text("what predict answers", GOOD) if is_primary else ""])
    return rows


def _input_notes(spec: TensorSpec) -> str:
    shown = ", ".join(spec.columns[:_MOST_COLUMNS_SHOWN])
    more = f", and {len(spec.columns) - _MOST_COLUMNS_SHOWN} more" if len(spec.columns) > _MOST_COLUMNS_SHOWN else ""
    notes = [f"columns {shown}{more}"] if spec.columns else []
    return "; ".join(notes if spec.allows_nan else [*notes, "takes no NaN"])


def _step(name: str, settings: Mapping[str, Any]) -> str:
    said = ", ".join(f"{key}={value}" for key, value in settings.items())
    return f"{name} ({said})" if said else name


def _print_report(report: Mapping[str, Any]) -> None:
    if report.get("kind") == "fidelity":
        _print_fidelity(report)
        return
    if report.get("kind") == "optimization":
        print_optimization(report)
        return
    print_heading(str(report.get("kind", "report")))
    tables = {key: value for key, value in report.items() if _is_table(value)}
    print_pairs({key: _plain(value) for key, value in report.items() if key != "kind" and key not in tables})
    for key, rows in tables.items():
        columns = list(dict.fromkeys(name for row in rows for name in row))
        print_line("")
        print_heading(f"  {key}")
        print_table(columns, [[_plain(row.get(name, "")) for name in columns] for row in rows])


def _print_fidelity(report: Mapping[str, Any]) -> None:
    """The certificate: what was tried, and the largest difference of each output."""
    verdict = Text("faithful", GOOD) if report["is_faithful"] else Text("not faithful", BAD)
    print_heading(f"certificate: {report['about']}" if report.get("about") else "certificate")
    tolerance = report["tolerance"]
    print_pairs(
        {
            "verdict": verdict,
            **({"reason": report["reason"]} if report["reason"] else {}),
            "rows tried": f"{report['rows']} ({_tried(report['tried'])})",
            **({"refused": f"{report['refused_rows']} by the source itself"} if report["refused_rows"] else {}),
            "tolerance": f"{tolerance['absolute']:g} + {tolerance['relative']:g} of the row's largest magnitude",
            "compared in": f"{report['seconds']:.2f} s",
            **({"made with": _plain(report["versions"])} if report["versions"] else {}),
            **_conversion(report.get("conversion") or {}),
            "samples": str(report["samples_digest"]),
        }
    )
    print_line("")
    headings = ["output", "largest error", "relative", "changed decisions", "at most (95 %)", "ties", "worst row"]
    print_table(headings, [_output_row(output) for output in report["outputs"]])


def _tried(tried: Mapping[str, int]) -> str:
    """Rows by where they came from; several sizes of one thing are named once."""
    plain: list[str] = []
    sizes: dict[str, list[int]] = {}
    for origin, rows in tried.items():
        thing, _, size = origin.rpartition(" of ")
        if thing and size.isdecimal():
            sizes.setdefault(thing, []).append(int(size))
        else:
            plain.append(f"{origin} {rows}")
    several = [f"{thing} of {', '.join(map(str, sorted(found)))}" for thing, found in sizes.items()]
    return "; ".join([", ".join(plain), *several] if plain else several)


def _conversion(conversion: Mapping[str, Any]) -> dict[str, str]:
    """How it came to this route: the ones that were refused before, and why."""
    if not conversion:
        return {}
    refused = {f"refused {one['route']}": " ".join(one["reason"].split()) for one in conversion["refused"]}
    return {"converted in": f"{conversion['seconds']:.2f} s, its certificate included", **refused}


def _output_row(output: Mapping[str, Any]) -> list[str | Text]:
    worst = str(output["worst_row"])
    if not output["is_decision"]:
        errors = [_plain(output["largest_absolute_error"]), _plain(output["largest_relative_error"])]
        return [output["name"], *errors, "", "", "", worst if output["largest_absolute_error"] else ""]
    changed = f"{output['changed']} of {output['rows']}"
    return [output["name"], "", "", changed, f"{output['changed_interval'][1]:.1%}", str(output["ties"]), worst]


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return (
        {True: "yes", False: "no", None: "–"}.get(value, str(value)) if isinstance(value, bool | None) else str(value)
    )
