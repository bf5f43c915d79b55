"""Programs of others at the stand-in: an application that knows nothing of a cloud, and AWS's own command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from modelserve.backend import DeploymentSpec, open_backend
from modelserve.testing import models

ROOT = Path(__file__).parents[3]
LOCAL = '[targets.prod]\nbackend = "local"\nworkers = 1\n'
CLOUD = '[targets.prod]\nbackend = "sagemaker"\nregion = "eu-west-1"\nrole_arn = "${SAGEMAKER_ROLE}"\nworkers = 1\n'


@contextmanager
def standin() -> Iterator[dict[str, str]]:
    """A stand-in in a process of its own; the environment that it prints."""
    command = [sys.executable, "-m", "modelserve_sagemaker.rehearsal", "--region", "eu-west-1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(5)]
            yield dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def run_application(configuration: str, environment: dict[str, str]) -> str:
    Path("modelserve.toml").write_text(configuration)
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "anywhere.py")],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(240)
def test_an_application_runs_there_by_its_configuration_alone() -> None:
    here = run_application(LOCAL, {})
    with standin() as environment:
        there = run_application(CLOUD, environment)
    print(f"local:\n{here}\nsagemaker:\n{there}")
    assert here == there
    assert "replicas 2" in there


AWS = ROOT / ".venv" / "awscli" / "bin" / "aws"


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.skipif(not AWS.exists(), reason="`make test-long` installs the awscli, apart from all else.")
def test_the_awscli_lists_describes_and_deletes_what_the_backend_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with standin() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

        def aws(*arguments: str) -> Any:
            done = subprocess.run(
                [str(AWS), *arguments, "--output", "json"], capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout or "null")

        backend = open_backend("sagemaker", {"role_arn": environment["SAGEMAKER_ROLE"], "workers": 1})
        backend.deploy(models.linear(), DeploymentSpec("digits")).close()
        (endpoint,) = aws("sagemaker", "list-endpoints")["Endpoints"]
        assert (endpoint["EndpointName"], endpoint["EndpointStatus"]) == ("digits", "InService")
        described = aws("sagemaker", "describe-endpoint", "--endpoint-name", "digits")
        assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 1
        config = aws("sagemaker", "describe-endpoint-config", "--endpoint-config-name", described["EndpointConfigName"])
        model = aws("sagemaker", "describe-model", "--model-name", config["ProductionVariants"][0]["ModelName"])
        bucket, _, key = model["PrimaryContainer"]["ModelDataUrl"].removeprefix("s3://").partition("/")
        assert aws("s3api", "head-object", "--bucket", bucket, "--key", key)["ContentLength"] > 0
        tags = aws("sagemaker", "list-tags", "--resource-arn", described["EndpointArn"])["Tags"]
        assert {"Key": "modelserve:deployment", "Value": "digits"} in tags
        aws("sagemaker", "delete-endpoint", "--endpoint-name", "digits")
        aws("sagemaker", "wait", "endpoint-deleted", "--endpoint-name", "digits")
        # What somebody else half deleted is found, and goes.
        (left,) = backend.list()
        assert (left.name, left.state.value) == ("digits", "failed")
        backend.delete("digits")
        assert backend.list() == []
        assert aws("sagemaker", "list-models")["Models"] == []
