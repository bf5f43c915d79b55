"""What only a public registry can say of the image that everything is built on. Needs the internet, no account."""

from __future__ import annotations

import pytest

from modelserve import image
from modelserve.image.base import look_up
from modelserve.image.recipe import Recipe

pytestmark = pytest.mark.live


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_default_base_is_there_and_has_the_python_that_it_is_believed_to_have(architecture: str) -> None:
    base = look_up(image.DEFAULT_BASE, image.Platform(architecture), image.anonymous)
    assert base.digest == image.DEFAULT_BASE.digest
    assert base.python.startswith(f"{Recipe().known_python}.")
    assert base.layers
