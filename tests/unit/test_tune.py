"""Which settings are tried, which is taken, and what is said of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import modelserve as ms
from modelserve.errors import ConfigError
from modelserve.runtime import PoolSettings, choose
from modelserve.runtime.cores import places, threads_wanted
from modelserve.runtime.tune import Setting, best, settings_to_try
from modelserve.testing import models


class TestSettings:
    @pytest.mark.parametrize("cores", [1, 2, 3, 4, 6, 64])
    @pytest.mark.parametrize("threads", [None, 1, 2, 16])
    def test_workers_times_threads_fit_the_processors(self, cores: int, threads: int | None) -> None:
        found = settings_to_try(cores, threads)
        assert found
        assert all(one.workers * one.threads <= max(cores, threads or 1) for one in found)
        assert threads is None or {one.threads for one in found} == {threads}

    def test_two_processors_are_tried_as_one_worker_two_workers_and_two_threads(self) -> None:
        assert settings_to_try(2, None) == [Setting(1, 1), Setting(1, 2), Setting(2, 1), Setting(2, 1, pin=True)]


class TestBest:
    def test_the_fastest_wins(self) -> None:
        assert best({Setting(1): 100.0, Setting(2): 190.0}).setting == Setting(2)

    def test_of_those_nearly_as_fast_the_one_with_fewest_workers_wins(self) -> None:
        rates = {Setting(1): 97.0, Setting(2): 98.0, Setting(2, 1, pin=True): 100.0}
        assert best(rates).setting == Setting(1)

    def test_the_reason_names_every_setting_and_its_rate(self) -> None:
        reason = best({Setting(1): 100.0, Setting(2): 1900.0}).reason
        assert reason == "2 workers of 1 thread: 1,900 requests/s, against 100 with 1 worker of 1 thread."


class TestEnvironment:
    @pytest.mark.parametrize(("said", "meant"), [("3", 3), ("4,2", 4), ("", None), ("0", None), ("many", None)])
    def test_omp_num_threads_is_respected(self, said: str, meant: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert threads_wanted() == meant

    @pytest.mark.parametrize(("said", "has_more"), [(None, False), ("2", True)])
    def test_it_is_what_a_local_worker_runs_with(
        self, said: str | None, has_more: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if said:
            monkeypatch.setenv("OMP_NUM_THREADS", said)
        with ms.Model(models.linear()).serve(workers=1) as deployment:
            pid = deployment.status().replicas[0].details["pid"]
            assert (len(list(Path(f"/proc/{pid}/task").iterdir())) > 1) == has_more

    def test_places_are_of_the_asked_size_and_never_none(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        assert places(1) == [[core] for core in cores]
        assert places(len(cores)) == [cores]
        assert places(len(cores) + 1) == [cores]


class TestChoosing:
    def test_each_setting_is_asked_and_the_choice_is_among_them(self) -> None:
        choice = choose(models.linear(), PoolSettings(), budget_s=0.3)
        assert choice.setting in choice.rates
        assert all(rate > 0 for rate in choice.rates.values())

    def test_serving_with_auto_says_what_was_chosen_and_why(self) -> None:
        said: list[str] = []
        with ms.Model(models.linear()).serve(workers="auto", on_progress=said.append) as deployment:
            status = deployment.status()
            assert status.message.startswith("Chose ")
            assert status.message in said
            assert f"Chose {len(status.replicas)} worker" in status.message

    def test_a_worker_that_is_pinned_keeps_to_its_processors(self) -> None:
        with ms.Model(models.linear()).serve(workers=2, pin=True) as deployment:
            pids = [replica.details["pid"] for replica in deployment.status().replicas]
            kept = [os.sched_getaffinity(pid) for pid in pids]
        assert kept[0] != kept[1] or len(os.sched_getaffinity(0)) == 1
        assert all(len(cores) == 1 for cores in kept)

    def test_auto_with_a_fixed_number_of_threads_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="chooses threads and pin as well"):
            ms.Model(models.linear()).serve(workers="auto", threads=2)

    def test_auto_for_a_callable_is_refused(self) -> None:
        from modelserve.backend import DeploymentSpec
        from modelserve_local import LocalBackend

        with pytest.raises(ConfigError, match="has none"):
            LocalBackend({"workers": "auto"}).deploy(models.live(), DeploymentSpec("callable"))
