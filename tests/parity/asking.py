"""What the tests of sources share: convert, and ask the bundle."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelserve.bundle import Bundle
from modelserve.convert import convert
from modelserve.session import Session
from modelserve.tensors import Array

RANDOM = np.random.default_rng(0)
# float32 sums of some hundred terms, taken in another order than the framework takes them.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def bundle_of(source: Any, example: Any = None, **settings: Any) -> Bundle:
    """The source, converted."""
    made = convert(source, example, **settings)
    assert isinstance(made, Bundle)
    return made


def answers(bundle: Bundle, inputs: Any) -> dict[str, Array]:
    """Every output by name, for inputs as a caller gives them."""
    names = [spec.name for spec in bundle.signature.outputs]
    return dict(Session(bundle).run(bundle.signature.check(inputs).tensors, names))


def answer(bundle: Bundle, inputs: Any) -> Array:
    """The primary output, for inputs as a caller gives them."""
    return answers(bundle, inputs)[bundle.signature.primary]


def step(bundle: Bundle) -> Any:
    """The settings of the conversion."""
    return bundle.manifest.lineage[0].settings


def numbers(*shape: int) -> Array:
    """Standard normal float32."""
    return RANDOM.normal(size=shape).astype(np.float32)


def ids(*shape: int) -> Array:
    """Whole numbers from 1 to 49."""
    return RANDOM.integers(1, 50, size=shape)
