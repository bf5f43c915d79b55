"""A process that is a server."""

import asyncio
import gc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modelserve.errors import BundleError, ConfigError, ModelServeError
from modelserve.runtime.server import process
from modelserve.runtime.server.server import Server
from modelserve.runtime.server.settings import ServerSettings


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def server(failures: list[ModelServeError], served: list[Any]) -> Server:
    async def loaded() -> list[ModelServeError]:
        return failures

    return cast("Server", SimpleNamespace(loaded=loaded, repository=SimpleNamespace(served=lambda: served)))


def test_what_is_there_before_the_first_model_is_left_out_of_the_collection_of_garbage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[object] = [[]]
    seen: list[bool] = []

    class Starting:
        async def start(self) -> None:
            seen.append(any(one is kept for one in gc.get_objects()))
            raise ConfigError("The port is taken.")

    monkeypatch.setattr(process, "Server", lambda settings, contract: Starting())
    monkeypatch.setattr(process, "set_up", lambda format_, level: None)
    monkeypatch.setattr(process, "_allow_many_connections", lambda: None)
    assert any(one is kept for one in gc.get_objects())
    settings = cast("ServerSettings", SimpleNamespace(log_format="text", log_level="error"))
    assert process.run(settings) == 2
    assert seen == [False]


@pytest.mark.parametrize(("served", "status"), [([], 1), (["another"], 0)], ids=["nothing else", "another one"])
def test_it_ends_where_no_model_at_all_was_loaded_and_is_never_called_ready(served: list[str], status: int) -> None:
    told: list[str] = []
    assert asyncio.run(process._watch(server([BundleError("broken")], served), told.append)) == status
    assert told == []


def test_it_is_called_ready_once_everything_is_loaded() -> None:
    told: list[str] = []
    assert asyncio.run(process._watch(server([], ["a model"]), told.append)) == 0
    assert told == ["Ready"]
