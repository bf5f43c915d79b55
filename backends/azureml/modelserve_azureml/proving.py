"""A new version proves itself on real requests before it gets all of them.

    mirror: copies of some requests, whose answers nobody sees ──► canary: some requests ──► all

After each stage it is judged by what Azure Monitor counted of both versions.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable

from modelserve.errors import StartError
from modelserve_azureml.site import Site, Version, route

_METRICS_VERSION = "2018-01-01"
#: By how much the share of failed requests may be above the old version's.
_MARGIN = 0.01

Progress = Callable[[str], None]


def prove(version: Version, old: str, deadline: float, tell: Progress) -> None:
    """Take a version through the stages that the options ask for.

    Raises:
        StartError: it failed more requests than the old one.
    """
    options, new = version.site.options, version.deployment
    if options.mirror_percent:
        tell(f"Mirroring {options.mirror_percent} % of the requests to the new version for {options.bake_s:g} s")
        _stage(version, old, {old: 100}, {new: options.mirror_percent}, deadline)
    if options.canary_percent:
        tell(f"Sending {options.canary_percent} % of the requests to the new version for {options.bake_s:g} s")
        _stage(version, old, {old: 100 - options.canary_percent, new: options.canary_percent}, {}, deadline)


def _stage(version: Version, old: str, live: dict[str, int], mirrored: dict[str, int], deadline: float) -> None:
    route(version.site, version.endpoint, live, mirrored, deadline=deadline)
    # What was counted before is another attempt's.
    since = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0)
    time.sleep(min(version.site.options.bake_s, max(0.0, deadline - time.monotonic())))
    new_share = _failed_share(version.site, version.endpoint, version.deployment, since)
    old_share = _failed_share(version.site, version.endpoint, old, since)
    if new_share > old_share + _MARGIN:
        raise StartError(
            f"The new version failed {new_share:.0%} of its requests, the old one {old_share:.0%}; the old one gets "
            "all of them again. See what was answered to them, and update again."
        )


def _failed_share(site: Site, endpoint: str, deployment: str, since: dt.datetime) -> float:
    """Of the requests to a version since then, those that failed."""
    answers = _answers(site, endpoint, deployment, since)
    failed = sum(count for status, count in answers.items() if status.startswith("5") or status in {"408", "424"})
    return failed / max(1.0, answers.total())


def _answers(site: Site, endpoint: str, deployment: str, since: dt.datetime) -> Counter[str]:
    """How often each status was answered since then, as Azure Monitor counted."""
    span = "/".join(f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (since, dt.datetime.now(dt.UTC)))
    path = (
        f"{site.workspace.endpoint(endpoint)}/providers/Microsoft.Insights/metrics"
        f"?metricnames=RequestsPerMinute&aggregation=Total&interval=PT1M&timespan={span}"
        f"&$filter=deployment eq '{deployment}' and statusCode eq '*'"
    )
    counted: Counter[str] = Counter()
    for metric in site.arm.ask("GET", path, version=_METRICS_VERSION).get("value") or []:
        for series in metric.get("timeseries") or []:
            status = next(
                (one["value"] for one in series["metadatavalues"] if one["name"]["value"] == "statuscode"), ""
            )
            counted[status] += sum(point.get("total") or 0 for point in series.get("data") or [])
    return counted
