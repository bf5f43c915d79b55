"""What Cloud Monitoring counted of an endpoint's answers: by deployed model, how many and how many were refusals.

A point is seen up to some minutes after its answers; so what is read is never more than what happened.
https://cloud.google.com/monitoring/api/metrics_gcp (prediction/online/response_count)
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlencode

from modelserve_vertex import names
from modelserve_vertex.google import Google

_METRIC = "aiplatform.googleapis.com/prediction/online/response_count"
_SUCCESS = "2"


class Count(NamedTuple):
    """Answers, and those of them that are no success."""

    answers: int = 0
    failed: int = 0

    @property
    def failed_share(self) -> float:
        return self.failed / self.answers if self.answers else 0.0


def answers(google: Google, endpoint: str, since: dt.datetime) -> Mapping[str, Count]:
    """By the id of each deployed model that answered since then.

    Raises:
        AccessDeniedError: the caller may not read metrics.
    """
    asked = {
        "filter": f'metric.type="{_METRIC}" AND resource.labels.endpoint_id="{names.short(endpoint)}"',
        "interval.startTime": since.isoformat(),
        "interval.endTime": dt.datetime.now(dt.UTC).isoformat(),
        "aggregation.alignmentPeriod": "60s",
        "aggregation.perSeriesAligner": "ALIGN_SUM",
        "aggregation.crossSeriesReducer": "REDUCE_SUM",
        "aggregation.groupByFields": ["metric.labels.deployed_model_id", "metric.labels.response_code"],
    }
    address = f"{google.address('monitoring')}/v3/projects/{google.project}/timeSeries?{urlencode(asked, doseq=True)}"
    found: dict[str, Count] = defaultdict(Count)
    for series in google.get(address, f"Counting the answers of {names.short(endpoint)!r}").get("timeSeries", []):
        labels = series["metric"]["labels"]
        count = sum(int(point["value"]["int64Value"]) for point in series["points"])
        failed = 0 if labels["response_code"].startswith(_SUCCESS) else count
        before = found[labels["deployed_model_id"]]
        found[labels["deployed_model_id"]] = Count(before.answers + count, before.failed + failed)
    return found
