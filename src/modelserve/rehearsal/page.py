"""The report as one HTML page: no script, no other file, readable on paper too."""

from __future__ import annotations

from html import escape

from modelserve.backend import Finding, Verdict
from modelserve.rehearsal.report import Report, Stage

_SIGNS = {Verdict.PASSED: "✓", Verdict.REFUSED: "✗", Verdict.LIVE_ONLY: "◌", Verdict.SKIPPED: "–"}
_WORDS = {
    Verdict.PASSED: "passed",
    Verdict.REFUSED: "refused",
    Verdict.LIVE_ONLY: "only seen live",
    Verdict.SKIPPED: "skipped",
}

_STYLE = """
:root { --ink: #1c2430; --quiet: #667085; --line: #e4e7ec; --ground: #f7f8fa; --card: #fff;
  --passed: #117a4f; --refused: #b42318; --live: #8a5a00; --skipped: #667085; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --quiet: #98a2b3; --line: #2b3442; --ground: #12161d;
  --card: #1a2029; --passed: #4cc38a; --refused: #ff8a80; --live: #e5b567; --skipped: #98a2b3; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1rem; margin: 0; }
h2::first-letter { text-transform: uppercase; }
.about { color: var(--quiet); margin: 0 0 1.5rem; overflow-wrap: anywhere; }
.verdict { display: flex; flex-wrap: wrap; gap: .75rem 2rem; align-items: baseline; background: var(--card);
  border: 1px solid var(--line); border-left: .35rem solid var(--passed); border-radius: .5rem; padding: 1rem 1.25rem;
  margin-bottom: 1.5rem; }
.verdict.bad { border-left-color: var(--refused); }
.verdict strong { font-size: 1.15rem; flex-basis: 100%; }
.verdict span { color: var(--quiet); }
section { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; margin-bottom: 1rem;
  break-inside: avoid; }
header { display: flex; justify-content: space-between; align-items: center; gap: 1rem; padding: .65rem 1.25rem;
  border-bottom: 1px solid var(--line); }
header span { color: var(--quiet); font-variant-numeric: tabular-nums; }
table { width: 100%; border-collapse: collapse; table-layout: fixed; }
td { padding: .5rem .5rem; vertical-align: top; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
tr:first-child td { border-top: 0; }
td:first-child { width: 11rem; padding-left: 1.25rem; white-space: nowrap; font-weight: 600; }
td.name { width: 8.5rem; }
td.time { width: 5.5rem; padding-right: 1.25rem; text-align: right; color: var(--quiet);
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.passed { color: var(--passed); } .refused { color: var(--refused); }
.live_only { color: var(--live); } .skipped { color: var(--skipped); }
@media (max-width: 40rem) { table, tbody, tr, td { display: block; width: auto !important; border: 0; text-align: left;
  padding: 0 1.25rem; } tr { padding: .6rem 0; border-top: 1px solid var(--line); } }
"""


def page(report: Report) -> str:
    """The whole page."""
    about = " · ".join(f"{escape(name)} {escape(value)}" for name, value in report.about.items() if name != "target")
    title = f"Rehearsal of {report.about.get('target', '')}"
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="about">{about}</p>{_summary(report)}'
        f"{''.join(_section(stage) for stage in report.stages)}</main></body></html>\n"
    )


def _summary(report: Report) -> str:
    verdict = "The real place would refuse nothing of this" if report.is_passed else "The real place would refuse this"
    counts = "".join(
        f'<span><b class="{_class(one)}">{report.count(one)}</b> {_WORDS[one]}</span>'
        for one in Verdict
        if report.count(one)
    )
    kind = "verdict" if report.is_passed else "verdict bad"
    return f'<div class="{kind}"><strong>{verdict}</strong>{counts}<span>{report.seconds:.1f} s</span></div>'


def _section(stage: Stage) -> str:
    rows = "".join(_row(finding) for finding in stage.findings)
    took = f"{stage.seconds:.1f} s" if stage.seconds >= 0.05 else ""
    return f"<section><header><h2>{escape(stage.name)}</h2><span>{took}</span></header><table>{rows}</table></section>"


def _row(finding: Finding) -> str:
    took = f"{finding.seconds:.2f} s" if finding.seconds >= 0.005 else ""
    return (
        f'<tr><td class="{_class(finding.verdict)}">{_SIGNS[finding.verdict]} {_WORDS[finding.verdict]}</td>'
        f'<td class="name">{escape(finding.name)}</td><td>{escape(finding.text)}</td><td class="time">{took}</td></tr>'
    )


def _class(verdict: Verdict) -> str:
    return verdict.name.lower()
