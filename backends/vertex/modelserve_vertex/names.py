"""What things are called, so that a second try finds what the first one made.

    deployment "churn"  ──►  endpoint        churn
    bundle + container  ──►  model           churn-<12 letters>
    model + machine     ──►  deployed model  <10 digits>
    work                ──►  batch job       found by its labels: its id is the service's

The same deployment always has the same names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from modelserve.backend.marks import Marks, content_name

#: Between the words of a label's key: Google takes no colon.
SEPARATOR = "-"
MADE_HERE = f'labels.modelserve{SEPARATOR}made-by="modelserve"'

_LEAST_ID = 10**9
_JOB = f"modelserve{SEPARATOR}job"
_ATTEMPT = f"modelserve{SEPARATOR}attempt"


def model_id(name: str, container: Mapping[str, Any]) -> str:
    """Of the registered model: `container` is all that Vertex AI keeps of it, the bundle's place included."""
    return content_name(name, container)


def deployed_id(model: str, machine: Mapping[str, Any]) -> str:
    """Of a model on its endpoint, 10 digits: on another machine it is another one, with other replicas it is not."""
    text = json.dumps([model, machine], sort_keys=True)
    return str(_LEAST_ID + int(hashlib.sha256(text.encode()).hexdigest(), 16) % (9 * _LEAST_ID))


def labels(name: str, digest: str, further: Mapping[str, str]) -> dict[str, str]:
    """What everything that is made carries, and by which it is found again."""
    return {**further, **Marks.of(name, digest).as_tags(SEPARATOR, is_short=True)}


def marks(resource: Any) -> Marks | None:
    """What a resource says of itself; None where modelserve did not make it."""
    return Marks.read(dict(resource.labels), SEPARATOR)


def made_for(name: str) -> str:
    """The filter that finds what was made for one deployment."""
    return f'labels.modelserve{SEPARATOR}deployment="{name}"'


def job_labels(job: str, attempt: str) -> dict[str, str]:
    """What a batch job carries beside its model's labels, since the service gives it an id of its own.

    Args:
        attempt: Of this one call, by which it finds what it made even if it never heard the answer.
    """
    return {_JOB: job, _ATTEMPT: attempt}


def job(resource: Any) -> str:
    """The name by which a batch job was asked for."""
    return str(resource.labels[_JOB])


def attempt(resource: Any) -> str:
    """The filter that finds the batch job that this call creates, and no other."""
    return f'labels.{_ATTEMPT}="{resource.labels[_ATTEMPT]}"'


def made_for_job(name: str, job: str) -> str:
    """The filter that finds the batch job `job` of one deployment."""
    return f'{made_for(name)} AND labels.{_JOB}="{job}"'


def short(resource: str) -> str:
    """The last part of a resource's name, without its version."""
    return resource.rpartition("/")[2].partition("@")[0]
