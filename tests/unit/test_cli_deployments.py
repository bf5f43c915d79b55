"""`modelserve deploy, list, status, scale, update, logs, delete`, over a backend in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelserve import Model
from modelserve.backend import EndpointStatus, Finding, State, Verdict
from modelserve.bundle import Bundle
from modelserve.errors import BackendError
from modelserve.testing import models
from modelserve.testing.memory import InMemoryBackend, MemoryCloud


@pytest.fixture
def bundle(memory: MemoryCloud) -> Bundle:
    return models.linear()


def test_a_deployment_lives_from_deploy_to_delete(run, bundle: Bundle, memory: MemoryCloud) -> None:
    made = run("deploy", bundle.path, "-t", "memory", "--name", "digits", "--replicas", "2", "--json")
    assert made.status == 0, made.err
    assert made.content["name"] == "digits"
    assert made.content["state"] == "ready"
    assert made.content["scale"] == {"minimum": 2, "maximum": 2}
    assert len(made.content["replicas"]) == 2
    assert made.content["digest"] == bundle.digest

    assert [entry["name"] for entry in run("list", "-t", "memory", "--json").content] == ["digits"]
    assert run("status", "digits", "-t", "memory", "--json").content == made.content
    scaled = run("scale", "digits", "3", "-t", "memory", "--json")
    assert scaled.content["scale"] == {"minimum": 3, "maximum": 3}
    ranged = run("scale", "digits", "-t", "memory", "--maximum", "4", "--target-inflight", "2", "--json")
    assert ranged.content["scale"] == {"minimum": 1, "maximum": 4, "target_inflight": 2.0}

    other = models.linear(seed=1)
    assert run("update", "digits", other.path, "-t", "memory", "--json").content["digest"] == other.digest
    assert run("logs", "digits", "-t", "memory").out == "digits: started\ndigits: updated\n"
    assert run("logs", "digits", "-t", "memory", "--last", "1", "--json").content == ["digits: updated"]
    assert run("logs", "digits", "-t", "memory", "--last", "0").out == ""

    gone = run("delete", "digits", "-t", "memory", "--yes", "--json")
    assert gone.content == {"name": "digits", "target": "memory", "deleted": True}
    assert memory.running == {}
    assert run("delete", "digits", "-t", "memory", "--yes").status == 0, "What is gone already is no failure."
    assert run("list", "-t", "memory").out == "Nothing is deployed.\n"


def test_people_get_words(run, bundle: Bundle) -> None:
    made = run("deploy", bundle.path, "-t", "memory", "--name", "digits")
    assert "digits" in made.out
    assert "ready" in made.out
    assert bundle.digest[:12] in made.out
    assert "digits-0" in made.out
    listed = run("list", "-t", "memory")
    assert "digits" in listed.out
    assert "memory" in listed.out


def test_a_dry_run_shows_the_plan_and_its_checks_and_touches_nothing(
    run, bundle: Bundle, memory: MemoryCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = [Finding("role", Verdict.REFUSED, "no such role"), Finding("quota", Verdict.PASSED, "8 of 10")]
    monkeypatch.setattr(InMemoryBackend, "preflight", lambda *_: findings)
    planned = run("deploy", bundle.path, "-t", "memory", "--name", "digits", "--dry-run", "--json")
    assert planned.content["action"] == "create"
    assert planned.content["findings"] == [
        {"name": "role", "verdict": "refused", "text": "no such role"},
        {"name": "quota", "verdict": "passed", "text": "8 of 10"},
    ]
    shown = run("deploy", bundle.path, "-t", "memory", "--name", "digits", "--dry-run")
    assert "Would create 'digits'" in shown.out
    assert "no such role" in shown.out
    assert shown.status == 1, "What would be refused is a failure, for whoever runs this before a release."
    assert memory.running == {}


def test_a_second_deploy_changes_nothing_and_another_model_updates(run, bundle: Bundle, memory: MemoryCloud) -> None:
    run("deploy", bundle.path, "-t", "memory", "--name", "digits")
    running = memory.running["digits"]
    plan = run("deploy", bundle.path, "-t", "memory", "--name", "digits", "--dry-run", "--json").content
    assert plan["action"] == "nothing"
    run("deploy", models.linear(seed=1).path, "-t", "memory", "--name", "digits")
    assert memory.running["digits"] is running
    assert running.lines[-1] == "digits: updated"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["status", "nobody", "-t", "memory"], 1, "no deployment 'nobody'"),
        (["status", "digits", "-t", "nowhere"], 2, "no target 'nowhere'"),
        (["scale", "digits", "-t", "memory"], 2, "needs a number of replicas"),
        (["scale", "digits", "2", "--maximum", "3", "-t", "memory"], 2, "not both"),
        (["scale", "digits", "--minimum", "3", "-t", "memory"], 2, "need --maximum"),
        (["scale", "digits", "--maximum", "0", "-t", "memory"], 2, "minimum <= maximum"),
        (["update", "digits", "nothing-there", "-t", "memory"], 2, "no bundle or model file"),
        (["deploy", "nothing-there", "-t", "memory"], 2, "no bundle or model file"),
        (["delete", "digits", "-t", "memory"], 2, "add --yes"),
        (["delete", "http://127.0.0.1:1", "--yes"], 2, "Name the target"),
        (["list", "-t", "memory", "--set", "region"], 2, "NAME=VALUE"),
        (["list", "-t", "memory", "--set", "colour=red"], 2, "no option 'colour'"),
        (["status", "digits", "-t", "local"], 1, "cannot be attached to"),
    ],
)
def test_what_cannot_be_is_one_line_and_a_status(run, arguments: list[str], status: int, message: str) -> None:
    done = run(*arguments)
    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_place_whose_deployments_end_with_the_command_is_refused_before_any_work(run, bundle: Bundle) -> None:
    done = run("deploy", bundle.path, "-t", "local")
    assert done.status == 2
    assert "modelserve serve BUNDLE" in done.err


def test_what_the_place_refuses_is_a_failure(run, bundle: Bundle, memory: MemoryCloud) -> None:
    memory.fail_next("deploy", BackendError("No room."))
    done = run("deploy", bundle.path, "-t", "memory", "--name", "digits")
    assert done.status == 1
    assert "No room." in done.err


def test_a_failed_deployment_is_shown_with_a_status_of_its_own(
    run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    Model(bundle).serve("memory", name="digits")
    failed = EndpointStatus("digits", "memory", State.FAILED, bundle.digest, None, message="out of memory")
    monkeypatch.setattr("modelserve.testing.memory._Running.status", lambda _: failed)
    done = run("status", "digits", "-t", "memory", "--json")
    assert (done.status, done.content["state"], done.content["message"]) == (1, "failed", "out of memory")


def test_every_configured_target_is_listed_and_one_that_fails_hides_no_other(run, bundle: Bundle) -> None:
    Path("modelserve.toml").write_text(
        '[targets.good]\nbackend = "memory"\n[targets.bad]\nbackend = "memory"\ncolour = "red"\n'
    )
    Model(bundle).serve("good", name="digits")
    done = run("list", "--json")
    assert done.status == 1
    assert [(entry["target"], entry["name"]) for entry in done.content] == [("good", "digits")]
    assert "Target 'bad'" in done.err


def test_an_option_given_here_goes_over_the_configured_one(
    run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    made = InMemoryBackend.__init__

    def look(self: InMemoryBackend, options: dict[str, object]) -> None:
        seen.append(dict(options))
        made(self, options)

    monkeypatch.setattr(InMemoryBackend, "__init__", look)
    Path("modelserve.toml").write_text('[targets.prod]\nbackend = "memory"\nregion = "here"\nworkers = 1\n')
    assert run("list", "-t", "prod", "--set", "region=there", "--set", "workers=2").status == 0
    assert seen == [{"region": "there", "workers": 2}]
