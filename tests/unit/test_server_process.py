"""A process that is a server."""

import asyncio
import gc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modelserve.errors import BundleError, ModelServeError
from modelserve.runtime.server import process
from modelserve.runtime.server.server import Server


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def server(failures: list[ModelServeError], served: list[Any]) -> Server:
    async def loaded() -> list[ModelServeError]:
        return failures

    return cast("Server", SimpleNamespace(loaded=loaded, repository=SimpleNamespace(served=lambda: served)))


def test_what_is_loaded_is_left_out_of_the_collection_of_garbage() -> None:
    told: list[str] = []
    kept = [[] for _ in range(100)]  # type: ignore[var-annotated]  # things that hold things, as modules and routes do
    assert gc.get_freeze_count() == 0
    assert asyncio.run(process._watch(server([], ["a model"]), told.append)) == 0
    assert gc.get_freeze_count() > len(kept)
    assert told == ["Ready"]


@pytest.mark.parametrize(("served", "status"), [([], 1), (["another"], 0)], ids=["nothing else", "another one"])
def test_it_ends_where_no_model_at_all_was_loaded_and_is_never_called_ready(served: list[str], status: int) -> None:
    told: list[str] = []
    assert asyncio.run(process._watch(server([BundleError("broken")], served), told.append)) == status
    assert told == []
