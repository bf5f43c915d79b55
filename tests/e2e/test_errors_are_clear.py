"""Each mistake a user makes is answered by what was asked, what was found and what to do; and nothing is half-made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelserve as ms
from modelserve import errors
from modelserve.testing import models
from modelserve_local import LocalBackend


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELSERVE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def running() -> list[str]:
    return [status.name for status in LocalBackend({}).list()]


@pytest.fixture(scope="module")
def linear(home: None) -> Iterator[ms.Deployment]:
    with ms.Model(models.linear()).serve(workers=1) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def two_inputs(home: None) -> Iterator[ms.Deployment]:
    with ms.Model(models.two_inputs()).serve(workers=1) as deployment:
        yield deployment


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.zeros((2, 5), np.float32), ["'x'", "float32[batch, 4]", "(2, 5)", "must be 4"]),
        (np.full((1, 4), 0.1), ["'x'", "float32", "float64", ".astype('float32')"]),
        (np.zeros((1, 4), complex), ["'x'", "float32", "complex128"]),
        ([[1.0, 2.0], [3.0]], ["'x'", "same length"]),
        (np.zeros((0, 4), np.float32), ["'x'", "empty", "at least one row"]),
        ({"y": np.zeros((1, 4), np.float32)}, ["unknown: 'y'", "missing: 'x'"]),
        (np.array([["a", "b", "c", "d"]]), ["'x'", "float32"]),
        (None, ["'x'"]),
    ],
)
def test_inputs_that_do_not_fit_are_refused_before_anything_is_sent(
    linear: ms.Deployment, inputs: Any, words: list[str]
) -> None:
    with pytest.raises(errors.SignatureError) as caught:
        linear.predict(inputs)
    for word in words:
        assert word in str(caught.value)


def test_an_unknown_input_among_several_is_named(two_inputs: ms.Deployment) -> None:
    with pytest.raises(errors.SignatureError, match=r"'left', 'right'(.|\n)*unknown: 'middle'"):
        two_inputs.predict({"left": np.zeros((1, 3), np.float32), "middle": np.zeros(1, np.int64)})


def test_nan_is_answered_where_the_model_takes_it(linear: ms.Deployment) -> None:
    assert np.isnan(linear.predict(np.full((1, 4), np.nan, np.float32))).all()


def test_an_object_that_no_converter_knows_is_named() -> None:
    before = running()
    with pytest.raises(errors.UnsupportedSourceError, match="object"):
        ms.Model(object()).serve()
    assert running() == before


def test_a_framework_whose_extra_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LinearRegression

    monkeypatch.delitem(sys.modules, "modelserve.convert.from_sklearn", raising=False)
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    x = np.arange(8.0).reshape(4, 2)
    with pytest.raises(errors.MissingExtraError, match=r'pip install "modelserve\[sklearn\]"'):
        ms.Model(LinearRegression().fit(x, x[:, 0]), example=x).serve()


def test_an_unknown_target_names_those_that_exist(tmp_path: Path) -> None:
    Path("modelserve.toml").write_text('[targets.dev]\nbackend = "local"\n')
    with pytest.raises(errors.UnknownTargetError, match=r"'prod'(.|\n)*dev"):
        ms.Model(models.linear()).serve("prod")


def test_an_unknown_backend_names_those_that_are_installed(tmp_path: Path) -> None:
    Path("modelserve.toml").write_text('[targets.dev]\nbackend = "moon"\n')
    with pytest.raises(errors.UnknownBackendError, match=r"'moon'(.|\n)*'local'"):
        ms.Model(models.linear()).serve("dev")


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": "many"}, {"wrokers": 2}, {"threads": -1}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    before = running()
    with pytest.raises(errors.ConfigError, match=next(iter(options))):
        ms.Model(models.linear(seed=5)).serve(**options)
    assert running() == before


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"no model"), lambda path: path.unlink()])
def test_a_damaged_bundle_is_refused(spoil: Callable[[Path], Any]) -> None:
    bundle = models.linear()
    spoil(bundle.model_path)
    with pytest.raises(errors.DamagedBundleError, match=r"model\.onnx"):
        ms.Model.load(bundle.path)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.ForeignBundleError, match="not a bundle"):
        ms.Model.load(tmp_path)


@pytest.mark.parametrize("replicas", [-1, 0.5, True, 10_000, "two"])
def test_a_scale_that_makes_no_sense_is_refused_and_changes_nothing(linear: ms.Deployment, replicas: Any) -> None:
    before = linear.status().scale
    with pytest.raises(errors.InvalidScaleError):
        linear.scale(replicas)
    assert linear.status().scale == before


def test_a_call_after_close_says_so_and_a_second_close_is_quiet() -> None:
    deployment = ms.Model(models.linear(seed=6)).serve(workers=1)
    deployment.close()
    deployment.close()
    with pytest.raises(errors.DeploymentClosedError, match="closed"):
        deployment.predict(np.zeros((1, 4), np.float32))


def test_a_deployment_that_is_forgotten_ends_its_workers() -> None:
    deployment = ms.Model(models.linear(seed=7)).serve(workers=1)
    name, pid = deployment.name, deployment.status().replicas[0].details["pid"]
    del deployment
    assert name not in running()
    assert not Path(f"/proc/{pid}").exists()


def test_attaching_to_local_workers_is_refused_with_the_reason() -> None:
    with pytest.raises(errors.NotSupportedError, match="end with the program"):
        ms.attach("anything", target="local")


def test_nothing_is_printed_by_a_whole_life_not_even_by_a_death(tmp_path: Path) -> None:
    program = """
import os, signal, numpy as np
import modelserve as ms
from modelserve.testing import models
with ms.Model(models.linear()).serve(workers=2) as deployment:
    deployment.predict(np.zeros((1, 4), np.float32))
    deployment.scale(1)
    os.kill(deployment.status().replicas[0].details["pid"], signal.SIGKILL)
    deployment.predict(np.zeros((1, 4), np.float32))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "")
