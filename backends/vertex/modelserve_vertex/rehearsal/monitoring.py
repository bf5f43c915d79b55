"""Cloud Monitoring, as far as a canary asks it: how often a deployed model answered, by class of status and minute."""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections import Counter
from typing import Any, NamedTuple

_METRIC = 'metric.type="aiplatform.googleapis.com/prediction/online/response_count"'
_ENDPOINT = re.compile(r'resource\.labels\.endpoint_id="(?P<id>[^"]+)"')


class _Answer(NamedTuple):
    at: dt.datetime
    endpoint: str
    deployed: str
    status: str


class Monitoring:
    """Counts answers.

    Attributes:
        delay_s: How long after an answer it is seen.
    """

    def __init__(self) -> None:
        self.delay_s = 0.0
        self._lock = threading.Lock()
        self._answers: list[_Answer] = []

    def note(self, endpoint: str, deployed: str, status: int) -> None:
        """An endpoint's model has answered."""
        answer = _Answer(dt.datetime.now(dt.UTC), endpoint, deployed, f"{status // 100}xx")
        with self._lock:
            self._answers.append(answer)

    def time_series(self, query: dict[str, list[str]]) -> dict[str, Any]:
        """What `projects.timeSeries.list` answers: a series for each model and class of status."""
        told = query["filter"][0]
        match = _ENDPOINT.search(told)
        if _METRIC not in told or match is None:
            return {}
        since, until = (dt.datetime.fromisoformat(query[f"interval.{end}Time"][0]) for end in ("start", "end"))
        until = min(until, dt.datetime.now(dt.UTC) - dt.timedelta(seconds=self.delay_s))
        with self._lock:
            counts = Counter(
                (one.deployed, one.status)
                for one in self._answers
                if one.endpoint == match["id"] and since <= one.at <= until
            )
        return {"timeSeries": [_series(deployed, status, count) for (deployed, status), count in counts.items()]}


def _series(deployed: str, status: str, count: int) -> dict[str, Any]:
    return {
        "metric": {"labels": {"deployed_model_id": deployed, "response_code": status}},
        "metricKind": "DELTA",
        "valueType": "INT64",
        "points": [{"value": {"int64Value": str(count)}}],
    }
