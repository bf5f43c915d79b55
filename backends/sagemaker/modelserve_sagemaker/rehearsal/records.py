"""What SageMaker keeps: models, configurations, endpoints, tags. moto overwrites, forgets and accepts too much."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelserve.standin.fleet import Fleet
from modelserve_sagemaker.rehearsal.answers import AwsError, invalid

ACCOUNT = "123456789012"


@dataclass(slots=True)
class EndpointRecord:
    """One endpoint. `fleets` answer by variant; `canary` is the part of them that tries a new version."""

    name: str
    arn: str
    config_name: str
    status: str = "Creating"
    failure: str = ""
    created: float = field(default_factory=time.time)
    modified: float = field(default_factory=time.time)
    fleets: dict[str, Fleet] = field(default_factory=dict)
    canary: dict[str, Fleet] = field(default_factory=dict)
    canary_percent: int = 0
    desired: dict[str, int] = field(default_factory=dict)
    serverless: dict[str, Any] = field(default_factory=dict)
    stages: list[str] = field(default_factory=list)
    last_deployment: dict[str, Any] = field(default_factory=dict)

    def move(self, status: str, failure: str = "") -> None:
        self.status, self.failure, self.modified = status, failure, time.time()


class Records:
    """Everything by name, and its rules of naming."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.lock = threading.RLock()
        self.models: dict[str, dict[str, Any]] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, EndpointRecord] = {}
        self.tags: dict[str, dict[str, str]] = {}

    def arn(self, kind: str, name: str) -> str:
        return f"arn:aws:sagemaker:{self.region}:{ACCOUNT}:{kind}/{name.lower()}"

    def add(self, kind: str, name: str, request: Mapping[str, Any]) -> str:
        """Keep a model or a configuration; returns its ARN."""
        kept, word = self._kept(kind)
        arn = self.arn(kind, name)
        with self.lock:
            if name in kept:
                raise invalid(f'Cannot create already existing {word} "{arn}".')
            content = {key: value for key, value in request.items() if key != "Tags"}
            kept[name] = {**content, "CreationTime": time.time()}
            self.tag(arn, request.get("Tags", []))
        return arn

    def get(self, kind: str, name: str) -> dict[str, Any]:
        kept, word = self._kept(kind)
        with self.lock:
            if name not in kept:
                raise invalid(f'Could not find {word} "{self.arn(kind, name)}".')
            return kept[name]

    def remove(self, kind: str, name: str) -> None:
        self.get(kind, name)
        kept, _ = self._kept(kind)
        with self.lock:
            del kept[name]
            self.tags.pop(self.arn(kind, name), None)

    def endpoint(self, name: str) -> EndpointRecord:
        with self.lock:
            if name not in self.endpoints:
                raise invalid(f'Could not find endpoint "{self.arn("endpoint", name)}".')
            return self.endpoints[name]

    def tag(self, arn: str, tags: list[dict[str, str]]) -> None:
        with self.lock:
            self.tags.setdefault(arn, {}).update({tag["Key"]: tag["Value"] for tag in tags})

    def tags_of(self, arn: str) -> list[dict[str, str]]:
        with self.lock:
            if arn not in self.tags:
                raise AwsError("ValidationException", f'Could not find resource "{arn}".')
            return [{"Key": key, "Value": value} for key, value in self.tags[arn].items()]

    def _kept(self, kind: str) -> tuple[dict[str, dict[str, Any]], str]:
        return (self.models, "model") if kind == "model" else (self.configs, "endpoint configuration")
