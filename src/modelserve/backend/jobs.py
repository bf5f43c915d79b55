"""A whole data set under way in a place's own batch service.

    parts ──Endpoint.batch──► Job ──status──► completed ──lines──► the answers of a part, in any order

Rows travel as JSON lines, which all of these services take. A line says which row it is, and so does its answer, so
that an order that the service does not keep is found again:

    {"$row": [part, index], "inputs": {"x": [1.5, 2.0]}, "outputs": ["label"]}
    {"$row": [part, index], "outputs": {"label": "cat"}}
    {"$row": [part, index], "error": "...", "code": "model_run"}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import NamedTuple

from modelserve.errors import DeploymentNotFoundError


class WorkPart(NamedTuple):
    """Rows whose answers become one part of the result.

    Attributes:
        lines: JSON lines, each with its line break; never empty.
    """

    number: int
    lines: bytes


class JobState(Enum):
    """How a job is."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class JobStatus(NamedTuple):
    """A job at one moment.

    Attributes:
        stage: What it is at, for people, in the place's own words.
        message: Why it failed.
    """

    state: JobState
    stage: str = ""
    message: str = ""


class Job(ABC):
    """Work that goes on at its place, whether or not anybody waits for it."""

    name: str

    @abstractmethod
    def status(self) -> JobStatus:
        """How it is now.

        Raises:
            DeploymentNotFoundError: it is gone.
        """

    @abstractmethod
    def lines(self, part: int) -> bytes:
        """The answers to a part's lines, in any order, once the job is completed.

        Raises:
            DeploymentNotFoundError: the part was not among its work, or was not answered whole.
        """

    @abstractmethod
    def delete(self) -> None:
        """Stop it if it is under way, and remove it and everything made for it. Quiet when it is gone already."""


class NothingToDo(Job):
    """What work without a single row comes to: no service is asked for it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def status(self) -> JobStatus:
        return JobStatus(JobState.COMPLETED)

    def lines(self, part: int) -> bytes:
        raise DeploymentNotFoundError(f"Job {self.name!r} has no part {part}: no row was given to it.")

    def delete(self) -> None:
        """There is nothing."""
