"""The stand-in for SageMaker, and a place that is it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from botocore import exceptions as vendor

from modelserve.standin.faults import Failing, Switches
from modelserve.testing.place import Place
from modelserve_sagemaker.errors import VENDOR_ERRORS
from modelserve_sagemaker.options import SageMakerOptions
from modelserve_sagemaker.rehearsal import SageMakerRehearsal, open_rehearsal
from modelserve_sagemaker.rehearsal.door import ACCESS_KEY, SECRET_KEY

#: Minutes of AWS pass in seconds: a health check of 60 s, the shortest there is, fails after 3.
PACE = 20.0
OPTIONS = {
    "region": "eu-west-1",
    "role_arn": "arn:aws:iam::999999999999:role/modelserve",
    "workers": 1,
    "startup_timeout_s": 600,
}

Open = Callable[..., SageMakerRehearsal]


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees an account of the machine's."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")


@pytest.fixture
def rehearse() -> Iterator[Open]:
    """Opens stand-ins with options of the test's own."""
    opened: list[SageMakerRehearsal] = []

    def rehearse(**options: object) -> SageMakerRehearsal:
        opened.append(open_rehearsal(SageMakerOptions.model_validate({**OPTIONS, **options}), pace=PACE))
        return opened[-1]

    yield rehearse
    for rehearsal in opened:
        rehearsal.close()
        assert rehearsal.standin.lives.processes == []


@pytest.fixture
def rehearsal(rehearse: Open) -> SageMakerRehearsal:
    return rehearse()


@pytest.fixture
def standin_place(rehearsal: SageMakerRehearsal) -> Place:
    return place_of(rehearsal)


@pytest.fixture
def standin_place_in(rehearse: Open) -> Callable[[str], Place]:
    """As `standin_place`, for endpoints of a mode."""
    return lambda mode: place_of(rehearse(mode=mode))


def place_of(rehearsal: SageMakerRehearsal) -> Place:
    """What the suites are told of a stand-in."""
    standin = rehearsal.standin
    before = rehearsal.leftovers()

    @contextmanager
    def half_failing() -> Iterator[None]:
        standin.faults.plan("sagemaker.CreateEndpoint", Failing("ResourceLimitExceeded", "No more endpoints."))
        yield
        standin.faults.clear()

    @contextmanager
    def failing_start() -> Iterator[None]:
        standin.faults.switches = Switches(crash_at_start=True)
        yield
        standin.faults.clear()

    return Place(
        rehearsal.backend,
        leftovers=lambda: [one for one in rehearsal.leftovers() if one not in before],
        half_failing=half_failing,
        vendor_errors=vendor_errors(),
        error_table=VENDOR_ERRORS,
        deadline_s=60,
        elsewhere=environment_of(rehearsal),
        kill_replica=rehearsal.kill_replica,
        failing_start=failing_start,
        faults=standin.faults,
    )


@pytest.fixture
def elsewhere() -> Callable[[SageMakerRehearsal], dict[str, str]]:
    """The environment of a program that reaches a stand-in as the target "elsewhere"."""
    return environment_of


def environment_of(rehearsal: SageMakerRehearsal) -> dict[str, str]:
    """The environment of a program that reaches this stand-in."""
    return {
        "MODELSERVE_TARGETS__ELSEWHERE__BACKEND": "sagemaker",
        "MODELSERVE_TARGETS__ELSEWHERE__REGION": rehearsal.standin.region,
        "MODELSERVE_TARGETS__ELSEWHERE__MODE": rehearsal.backend._options.mode.value,
        "AWS_ENDPOINT_URL": rehearsal.standin.url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }


def vendor_errors() -> list[BaseException]:
    """One of each error that botocore and boto3 define."""
    from boto3 import exceptions as boto3_errors

    kinds = {
        kind
        for module in (vendor, boto3_errors)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == module.__name__
    }
    return [_made(kind) for kind in kinds if not issubclass(kind, Warning)]


def _made(kind: type[Exception]) -> BaseException:
    error = kind.__new__(kind)
    if issubclass(kind, vendor.ClientError):
        error.response = {"Error": {"Code": "InternalFailure"}}  # type: ignore[attr-defined]  # what botocore sets
    return error
