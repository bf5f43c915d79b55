"""Many models in one server: versions, loading on demand, room under a budget, and who hurts whom (nobody)."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelserve.runtime.server.models.catalogue import Catalogue
from modelserve.testing import models
from modelserve.testing.serving import ServerThread, bundle_folder

ROW = {"instances": [[1, 2, 3, 4]]}


def call(url: str, content: Any = None, *, method: str = "POST") -> tuple[int, Any]:
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def ready(server: ServerThread) -> set[tuple[str, str]]:
    return {(served.name, served.version) for served in server.server.repository.served()}


def test_versions_are_ordered_as_numbers_and_the_highest_is_the_default(tmp_path: Path) -> None:
    bundle = models.linear()
    folder = bundle_folder(tmp_path, m=dict.fromkeys(["9", "10", "beta", "1"], bundle), plain=bundle)
    (folder / ".hidden").mkdir()
    (folder / "empty").mkdir()
    (folder / "linked").symlink_to(folder / "plain")
    places = [(place.name, place.version) for place in Catalogue(folder).places()]
    assert places == [("m", "1"), ("m", "9"), ("m", "10"), ("m", "beta"), ("plain", "1")]


def test_models_of_a_folder_are_loaded_by_their_default_version(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path, a={"1": models.linear(seed=1), "2": models.linear(seed=2)}, b=models.mlp())
    with ServerThread(models=folder) as server:
        assert ready(server) == {("a", "2"), ("b", "1")}
        _, newest = call(f"{server.url}/v1/models/a:predict", ROW)
        status, _ = call(f"{server.url}/v2/repository/models/a/versions/1/load", {})
        assert status == 200
        assert call(f"{server.url}/v1/models/a/versions/1:predict", ROW)[1] != newest
        assert call(f"{server.url}/v1/models/a:predict", ROW)[1] == newest
        call(f"{server.url}/v2/repository/models/a/versions/2/unload", {})
        assert ready(server) == {("a", "1"), ("b", "1")}


def test_a_model_without_a_name_in_its_path_must_be_the_only_one(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path, a=models.linear(), b=models.mlp())
    with ServerThread(models=folder) as server:
        status, answer = call(f"{server.url}/invocations", ROW)
        assert status == 400
        assert "a, b" in answer["error"]
        call(f"{server.url}/v2/repository/models/b/unload", {})
        assert call(f"{server.url}/invocations", ROW)[0] == 200


def test_on_demand_a_model_is_loaded_when_it_is_first_asked(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path, a=models.linear(), b=models.mlp())
    with ServerThread(models=folder, on_demand=True) as server:
        assert ready(server) == set()
        with ThreadPoolExecutor(8) as threads:
            asked = list(threads.map(lambda _: call(f"{server.url}/v1/models/a:predict", ROW)[0], range(8)))
        assert asked == [200] * 8
        assert ready(server) == {("a", "1")}


@pytest.mark.long
def test_the_least_recently_used_makes_room(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path, **{name: models.linear(seed=ord(name)) for name in "abc"})
    with ServerThread(models=folder, on_demand=True) as probe:
        call(f"{probe.url}/v1/models/a:predict", ROW)
        taken = probe.server.repository.served()[0].memory_bytes
    # Room for two by what was measured, and not for a third even by the estimate.
    budget_mib = ((2 * taken + (24 << 20)) >> 20) - 1
    with ServerThread(models=folder, on_demand=True, memory_mib=budget_mib) as server:
        answers = {name: call(f"{server.url}/v1/models/{name}:predict", ROW)[1] for name in "ab"}
        assert ready(server) == {("a", "1"), ("b", "1")}
        call(f"{server.url}/v1/models/a:predict", ROW)
        assert call(f"{server.url}/v1/models/c:predict", ROW)[0] == 200
        assert ready(server) == {("a", "1"), ("c", "1")}
        assert call(f"{server.url}/v1/models/b:predict", ROW)[1] == answers["b"]


def test_a_model_that_fits_in_no_room_is_refused_and_the_others_answer_on(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path, a=models.linear())
    with ServerThread(models=folder, on_demand=True, memory_mib=1) as server:
        status, answer = call(f"{server.url}/v1/models/a:predict", ROW)
        assert status == 503
        assert "MiB" in answer["error"]


def test_loading_again_takes_the_newer_bundle_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path, a=models.linear(seed=1))
    with ServerThread(models=folder) as server:
        url = f"{server.url}/v1/models/a:predict"
        _, first = call(url, ROW)
        pids = [worker.pid for worker in server.server.repository.find("a").pool.status().workers]
        assert call(f"{server.url}/v2/repository/models/a/load", {})[0] == 200
        assert [worker.pid for worker in server.server.repository.find("a").pool.status().workers] == pids
        shutil.rmtree(folder / "a")
        bundle_folder(folder, a=models.linear(seed=2))
        assert call(f"{server.url}/v2/repository/models/a/load", {})[0] == 200
        _, second = call(url, ROW)
        assert second != first
        (folder / "a" / "model.onnx").write_bytes(b"junk")
        status, answer = call(f"{server.url}/v2/repository/models/a/load", {})
        assert status == 422
        assert "manifest" in answer["error"]
        assert call(url, ROW)[1] == second


def test_workers_of_a_model_can_be_scaled(tmp_path: Path) -> None:
    with ServerThread(model=models.linear().path) as server:
        base = f"{server.url}/v2/repository/models/model"
        assert call(f"{base}/scale", {"workers": 3})[0] == 200
        status, answer = call(f"{server.url}/v2/models/model/status", method="GET")
        assert (status, answer["wanted"], len(answer["workers"])) == (200, 3, 3)
        for bad in ({"workers": -1}, {"workers": "2"}, {"workers": 1000}, {}, {"workers": 1, "more": 1}):
            assert call(f"{base}/scale", bad)[0] == 400


@pytest.mark.parametrize("name", ["../x", "", ".x", "a/b", "a" * 200, "a b"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    from modelserve.errors import ConfigError

    with pytest.raises(ConfigError, match="no name for a model"):
        Catalogue(None, {name: Path("x")})
