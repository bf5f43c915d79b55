"""Anything that predicts: what a data set is sent through."""

from __future__ import annotations

from typing import Protocol

from modelserve.backend import EndpointStatus, Limits, ReplyFuture, Request
from modelserve.tensors import Signature


class Predictor(Protocol):
    """What a run over a data set asks of a model; every endpoint is one."""

    @property
    def name(self) -> str: ...

    @property
    def signature(self) -> Signature: ...

    @property
    def rows_independent(self) -> bool: ...

    @property
    def limits(self) -> Limits: ...

    def submit(self, request: Request) -> ReplyFuture: ...

    def status(self) -> EndpointStatus: ...


def under_way(predictor: Predictor) -> int:
    """Requests that keep every replica busy while the next ones are made."""
    return max(2, predictor.limits.parallel)
