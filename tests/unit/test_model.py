"""The front door: from a model to a deployment, over a backend in this process."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from modelserve import Bundle, Deployment, Model, Scale, errors
from modelserve.backend import Capability, Support
from modelserve.model import DryRun, default_name
from modelserve.testing import models
from modelserve.testing.memory import InMemoryBackend, MemoryCloud

X = np.ones((2, 4), np.float32)


@pytest.fixture
def linear(memory: MemoryCloud) -> Bundle:
    return models.linear()


def configured(text: str) -> None:
    Path("modelserve.toml").write_text(text)


def test_a_bundle_its_path_and_load_give_the_same_bundle(linear: Bundle) -> None:
    assert Model(linear).bundle() is linear
    assert Model(linear.path).bundle().digest == linear.digest
    assert Model(str(linear.path)).bundle().digest == linear.digest
    assert Model.load(linear.path).bundle().digest == linear.digest


def test_load_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(errors.ForeignBundleError, match="not a bundle"):
        Model.load(tmp_path)


def test_a_source_is_converted_once_with_everything_that_was_said(linear: Bundle, monkeypatch) -> None:
    import modelserve.convert

    calls = []

    def convert(source, example=None, **settings):
        calls.append((source, example, settings))
        return linear

    monkeypatch.setattr(modelserve.convert, "convert", convert, raising=False)
    model = Model("a source", "an example", signature=linear.signature, inputs="i", tolerance="t")
    assert model.bundle() is model.bundle() is linear
    assert calls == [("a source", "an example", {"signature": linear.signature, "inputs": "i", "tolerance": "t"})]


def test_none_is_no_model() -> None:
    with pytest.raises(errors.InputError, match="trained model"):
        Model(None)


def test_the_name_is_made_of_type_and_digest(linear: Bundle) -> None:
    assert default_name(linear) == f"linear-{linear.digest[:12]}"
    assert default_name(models.mlp()).startswith("tiny-classifier-")
    assert default_name(models.live()).startswith("callable-")


@pytest.mark.parametrize(
    "kind",
    ["sklearn.linear_model.LogisticRegression", "A" * 99, "größe", "___", "9lives", "", "XGBClassifier", "a.b.-c-"],
)
def test_every_type_gives_a_name_that_every_place_takes(kind: str) -> None:
    import dataclasses
    import re

    bundle = models.linear()
    origin = dataclasses.replace(bundle.manifest.origin, type=kind)
    name = default_name(dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, origin=origin)))
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,38}[a-z0-9]", name)
    assert len(name) <= 40


@pytest.mark.parametrize("name", ["", "Upper", "-a", "a-", "1a", "a_b", "a" * 41, "ü", "a\n", 3])
def test_a_name_that_some_place_would_refuse_is_refused(linear: Bundle, name: object) -> None:
    with pytest.raises(errors.InputError, match="name"):
        Model(linear).serve("memory", name=name)


def test_serving_twice_changes_nothing_and_another_model_updates(memory: MemoryCloud, linear: Bundle) -> None:
    Model(linear).serve("memory", name="one")
    first = memory.running["one"].served
    Model(linear).serve("memory", name="one")
    assert memory.running["one"].served is first
    deployment = Model(models.linear(seed=1)).serve("memory", name="one")
    assert deployment.status().digest == models.linear(seed=1).digest


def test_the_file_decides_where_and_code_decides_over_the_file(memory: MemoryCloud, linear: Bundle) -> None:
    configured('default_target = "dev"\n[targets.dev]\nbackend = "memory"\nworkers = 2\n')
    assert len(Model(linear).serve(name="a").status().replicas) == 2
    assert len(Model(linear).serve(name="b", workers=3).status().replicas) == 3
    assert len(Model(linear).serve(name="c", scale=4).status().replicas) == 4
    assert Model(linear).serve(name="d", scale=Scale(1, 2)).status().scale == Scale(1, 2)


@pytest.mark.parametrize(("written", "scale"), [("3", Scale(3, 3)), ("{maximum = 4}", Scale(1, 4))])
def test_the_files_scale_is_taken(linear: Bundle, written: str, scale: Scale) -> None:
    configured(f'[targets.dev]\nbackend = "memory"\nscale = {written}\n')
    assert Model(linear).serve("dev").status().scale == scale


def test_an_option_that_the_backend_does_not_know_is_refused(memory: MemoryCloud, linear: Bundle) -> None:
    with pytest.raises(errors.ConfigError, match="no option 'colour'"):
        Model(linear).serve("memory", colour="blue")
    assert memory.running == {}


def test_an_unknown_target_or_backend_is_refused_before_anything_is_converted(monkeypatch) -> None:
    with pytest.raises(errors.UnknownTargetError, match="'nowhere'"):
        Model("anything").serve("nowhere")
    with pytest.raises(errors.InputError, match="target="):
        Model("anything").serve(3)
    configured('[targets.dev]\nbackend = "gone"\n')
    with pytest.raises(errors.UnknownBackendError, match="'gone'"):
        Model("anything").serve("dev")


def test_a_scale_that_the_place_lacks_is_refused(linear: Bundle) -> None:
    with pytest.raises(errors.NotSupportedError, match="scale to zero"):
        Model(linear).serve("memory", scale=Scale(0, 2))


def test_a_deploy_that_fails_reaches_the_caller(memory: MemoryCloud, linear: Bundle) -> None:
    memory.fail_next("deploy", errors.OverloadedError("Full."))
    with pytest.raises(errors.OverloadedError):
        Model(linear).serve("memory")


def test_a_live_callable_goes_only_where_it_is_declared(memory: MemoryCloud, monkeypatch) -> None:
    model = Model("callable")
    monkeypatch.setattr(model, "_convert", lambda **_: models.live("It calls a database."))
    assert model.serve("memory").predict(np.ones((1, 2), np.float32)).tolist() == [[2, 2]]
    with pytest.raises(errors.NotSupportedError, match="It calls a database"):
        model.bundle()
    monkeypatch.setattr(InMemoryBackend, "support", {Capability.LIVE_CALLABLE: Support.IMPOSSIBLE})
    with pytest.raises(errors.NotSupportedError, match=r"portable models only.*It calls a database"):
        model.serve("memory", name="other")


def test_a_plan_is_carried_out_and_the_original_stays(memory: MemoryCloud) -> None:
    bundle = models.mlp(64, 128, 10)
    model = Model(bundle)
    with model.serve("memory", optimize="int8") as deployment:
        assert deployment.status().digest == model.bundle("int8").digest != bundle.digest
        assert deployment.predict(bundle.example()).shape == (4,)
    assert model.bundle() is bundle


def test_a_plan_that_makes_no_sense_is_refused_before_anything_is_made(memory: MemoryCloud, linear: Bundle) -> None:
    for plan in ("int3", 7, object()):
        with pytest.raises(errors.PlanError):
            Model(linear).serve("memory", optimize=plan)
    assert not memory.running


def test_a_live_callable_cannot_be_optimised(memory: MemoryCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelserve.convert.portable_or_live", lambda *_, **__: models.live())
    with pytest.raises(errors.PlanError, match="portable"):
        Model(print).serve("memory", optimize="int8")


def test_progress_is_told(linear: Bundle) -> None:
    lines: list[str] = []
    Model(linear).serve("memory", name="one", on_progress=lines.append)
    assert lines == ["Starting one"]


def test_a_dry_run_says_what_it_would_do_and_touches_nothing(
    memory: MemoryCloud, linear: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    configured('[targets.dev]\nbackend = "memory"\nregion = "eu-west-1"\ntoken = "${TOKEN}"\nscale = 2\n')
    plan = Model(linear).serve("dev", name="one", dry_run=True)
    assert isinstance(plan, DryRun)
    assert memory.running == {}
    printed = capsys.readouterr().out
    assert printed == f"{plan}\n"
    assert "Would create 'one' on target 'dev' (backend 'memory')" in printed
    assert "region = 'eu-west-1'" in printed
    assert "hunter2" not in printed
    lines: list[str] = []
    deployment = Model(linear).serve("dev", name="one")
    assert isinstance(deployment, Deployment)
    assert Model(linear).serve("dev", name="one", dry_run=True, on_progress=lines.append).action == "nothing"
    assert Model(models.mlp()).serve("dev", name="one", dry_run=True, on_progress=lines.append).action == "update"
    assert len(lines) == 2
    assert capsys.readouterr().out == ""


def test_nothing_is_left_of_a_bundle_that_was_damaged(linear: Bundle, tmp_path: Path) -> None:
    shutil.copytree(linear.path, tmp_path / "copy")
    (tmp_path / "copy" / "model.onnx").write_bytes(b"x")
    with pytest.raises(errors.DamagedBundleError):
        Model(tmp_path / "copy").serve("memory")
