"""What every cloud's backend is made of: journal, marks, names, pre-flight."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelserve.backend import journal
from modelserve.backend.journal import Journal, unfinished
from modelserve.backend.marks import Marks, content_name
from modelserve.backend.preflight import Check, OnlyLive, Skipped, Verdict, look_all, require_passed
from modelserve.errors import ConfigError, ModelServeError, PreflightError


def test_what_a_failed_call_made_is_undone_in_reverse_order() -> None:
    undone: list[str] = []
    with pytest.raises(RuntimeError), Journal("cloud", "digits") as made:  # noqa: PT012  # the journal is what is tried
        for kind in ("model", "config", "endpoint"):
            made.will_create(kind, f"digits-{kind}", lambda kind=kind: undone.append(kind))
        raise RuntimeError
    assert undone == ["endpoint", "config", "model"]
    assert unfinished("cloud") == {}


def test_ctrl_c_undoes_too() -> None:
    undone: list[str] = []
    with pytest.raises(KeyboardInterrupt), Journal("cloud", "digits") as made:  # noqa: PT012  # the journal is what is tried
        made.will_create("model", "m", lambda: undone.append("m"))
        raise KeyboardInterrupt
    assert undone == ["m"]


def test_it_is_on_disk_before_it_is_created() -> None:
    with Journal("cloud", "digits") as made:
        made.will_create("model", "m", lambda: None)
        (entries,) = unfinished("cloud", "digits").values()
        assert [str(entry) for entry in entries] == ["model 'm'"]
        assert unfinished("cloud", "another") == {}
    assert unfinished("cloud") == {}


def test_what_was_there_before_is_not_undone() -> None:
    undone: list[str] = []
    with pytest.raises(RuntimeError), Journal("cloud", "digits") as made:  # noqa: PT012  # the journal is what is tried
        found = made.will_create("model", "m", lambda: undone.append("m"))
        made.forget(found)
        raise RuntimeError
    assert undone == []


def test_what_cannot_be_undone_is_told_and_stays_written() -> None:
    undone: list[str] = []

    def resists() -> None:
        raise ModelServeError("It is busy.")

    with pytest.raises(RuntimeError) as raised, Journal("cloud", "digits") as made:  # noqa: PT012  # the journal is what is tried
        made.will_create("model", "m", lambda: undone.append("m"))
        made.will_create("endpoint", "e", resists)
        raise RuntimeError
    assert undone == ["m"]
    (note,) = raised.value.__notes__
    assert "endpoint 'e' (It is busy.)" in note
    assert "modelserve delete digits" in note
    journal.settle(list(unfinished("cloud")))
    assert unfinished("cloud") == {}


def test_a_line_that_was_cut_is_not_read(tmp_path: Path) -> None:
    with Journal("cloud", "digits") as made:
        made.will_create("model", "m", lambda: None)
        (path,) = unfinished("cloud")
        path.write_text(path.read_text() + '{"deployment": "dig')
        assert [len(entries) for entries in unfinished("cloud").values()] == [1]


def test_without_a_journal_nothing_is_created(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODELSERVE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelServeError, match="journal"):
        Journal("cloud", "digits").will_create("model", "m", lambda: None)


@pytest.mark.parametrize(("separator", "is_short"), [(":", False), ("-", True), ("_", True)])
def test_marks_are_read_back(separator: str, is_short: bool) -> None:
    marks = Marks("digits", "ab" * 32, "1-0")
    tags = marks.as_tags(separator, is_short=is_short)
    assert all(len(value) < 64 for value in tags.values()) is is_short
    assert Marks.read({**tags, "owner": "me"}, separator) == marks
    assert Marks.read({"owner": "me"}, separator) is None


def test_the_same_content_has_the_same_name() -> None:
    first = content_name("digits", {"a": 1, "b": [2]})
    assert first == content_name("digits", {"b": [2], "a": 1})
    assert first != content_name("digits", {"a": 1, "b": [3]})
    assert len(content_name("x" * 80, {}, longest=63)) == 63
    assert "--" not in content_name("digits-" + "x" * 40, {}, longest=20)


def test_findings_say_everything_at_once() -> None:
    def refused() -> str:
        raise ConfigError("The role is no role. Give role_arn=.")

    def live() -> str:
        raise OnlyLive("Quota is the account's.")

    def skipped() -> str:
        raise Skipped("No role was given.")

    findings = look_all(
        [Check("image", lambda: "is there"), Check("role", refused), Check("quota", live), Check("kms", skipped)]
    )
    assert [finding.verdict for finding in findings] == list(Verdict)
    require_passed([findings[0], *findings[2:]], "Deploying")
    with pytest.raises(PreflightError, match=r"\(1\) role: The role is no role"):
        require_passed(findings, "Deploying")
