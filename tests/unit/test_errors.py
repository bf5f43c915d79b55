"""The tree that errors.py draws is the tree that stands."""

import pickle
import re

import pytest

from modelserve import errors
from modelserve.errors import ModelServeError, OverloadedError, by_code


def classes(root: type = ModelServeError) -> list[type]:
    # By their module: tests may define classes of their own below.
    children = [child for child in root.__subclasses__() if child.__module__ == errors.__name__]
    return [root, *(found for child in children for found in classes(child))]


def drawn() -> dict[str, str | None]:
    """Each class in the drawing with the one it hangs from."""
    parents: dict[str, str | None] = {}
    line_of: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"^([ │├└─]*)(\w+Error)\b", line)
        if not found:
            continue
        depth = len(found[1])
        line_of = [(at, name) for at, name in line_of if at < depth]
        parents[found[2]] = line_of[-1][1] if line_of else None
        line_of.append((depth, found[2]))
    return parents


def test_the_drawing_is_the_tree() -> None:
    real = {
        kind.__name__: next((base.__name__ for base in kind.__bases__ if base in classes()), None) for kind in classes()
    }
    assert drawn() == real


def test_each_class_has_a_code_and_a_meaning_of_its_own() -> None:
    codes = [vars(kind).get("code") for kind in classes()]
    assert None not in codes
    assert len(set(codes)) == len(codes)
    assert all(kind.__doc__ for kind in classes())


@pytest.mark.parametrize("kind", classes())
def test_a_code_gives_back_its_class(kind: type[ModelServeError]) -> None:
    assert by_code(kind.code) is kind


def test_a_code_of_a_newer_version_is_still_an_error_of_ours() -> None:
    assert by_code("melted") is ModelServeError


def test_the_public_names_are_the_classes() -> None:
    import modelserve

    promised = {name for name in modelserve.__all__ if name.endswith("Error")}
    assert promised <= {kind.__name__ for kind in classes()}
    assert "ModelServeError" in promised


def test_errors_survive_a_pickle_as_they_may_cross_the_users_own_processes() -> None:
    copy = pickle.loads(pickle.dumps(OverloadedError("Full.", retry_after_s=3.0)))
    assert (type(copy), str(copy), copy.retry_after_s) == (OverloadedError, "Full.", 3.0)


def test_those_that_python_has_a_word_for_are_caught_by_it() -> None:
    assert issubclass(errors.SignatureError, ValueError)
    assert issubclass(errors.DeadlineError, TimeoutError)
    assert issubclass(errors.OutOfMemoryError, MemoryError)
