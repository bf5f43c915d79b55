"""From a trained model to answers.

    Model(classifier, example=X[:8]).serve().predict(X)

Everything here loads on first use: importing the package loads no framework, no onnxruntime and no numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelserve import errors
    from modelserve.backend import Scale
    from modelserve.bundle import Bundle
    from modelserve.convert.images import ImageInput
    from modelserve.deployment import Deployment, attach
    from modelserve.errors import ModelServeError
    from modelserve.model import Model
    from modelserve.optimize import Auto, Compact, Fuse, Prune, Quantize
    from modelserve.tensors import Signature, TensorSpec

    __version__: str

__all__ = [
    "Auto",
    "Bundle",
    "Compact",
    "Deployment",
    "Fuse",
    "ImageInput",
    "Model",
    "ModelServeError",
    "Prune",
    "Quantize",
    "Scale",
    "Signature",
    "TensorSpec",
    "attach",
    "errors",
]

_HOME = {
    "Auto": "optimize",
    "Bundle": "bundle",
    "Compact": "optimize",
    "Deployment": "deployment",
    "Fuse": "optimize",
    "ImageInput": "convert.images",
    "Model": "model",
    "ModelServeError": "errors",
    "Prune": "optimize",
    "Quantize": "optimize",
    "Scale": "backend",
    "Signature": "tensors",
    "TensorSpec": "tensors",
    "attach": "deployment",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name == "errors":
            return import_module(".errors", __name__)
        if name == "__version__":
            return import_module("importlib.metadata").version(__name__)
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
