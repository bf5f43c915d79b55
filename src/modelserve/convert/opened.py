"""A converted graph, loaded to be asked; one too large for memory's sake lies on disk meanwhile, and is mapped."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelserve.bundle import bundles_home
from modelserve.bundle.weights import save_model, weight_bytes
from modelserve.errors import BundleError, ConversionError
from modelserve.session import load

if TYPE_CHECKING:
    from onnx import ModelProto

# A serialised graph ends at 2 GB, and costs its size again well before that.
ON_DISK_FROM_BYTES = 256 << 20
# Without it onnxruntime makes a second copy of the weights, packed for its kernels.
AS_THEY_LIE = {"session.disable_prepacking": "1"}


@contextlib.contextmanager
def opened(model: ModelProto) -> Iterator[Any]:
    """A session of the graph.

    Raises:
        ConversionError: onnxruntime refuses it.
    """
    if weight_bytes(model) < ON_DISK_FROM_BYTES:
        yield _loaded(model.SerializeToString())
        return
    home = bundles_home()
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=".making-") as folder:
        yield _loaded(save_model(model, Path(folder)), AS_THEY_LIE)


def _loaded(model: Path | bytes, settings: Mapping[str, str] | None = None) -> Any:
    try:
        return load(model, settings=settings)
    except BundleError as error:
        raise ConversionError(f"The converted graph is not valid: {error}") from error
