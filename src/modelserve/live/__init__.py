"""Sources that run as they are: what travels to the application's own workers, and is called there.

    tensors by name ──packing──► the source's own arguments ──► its answer ──named──► tensors by name

Workers unpickle these classes by name, so that this room imports no framework, no converter and no onnx.
"""

from modelserve.live.calls import EstimatorCall, MatrixModel, SourceCall, TorchCall
from modelserve.live.packing import Example, Packing, Style, read_example
from modelserve.live.tail import PartsCall

__all__ = ["EstimatorCall", "Example", "MatrixModel", "Packing", "PartsCall", "SourceCall", "Style", "TorchCall",
           "read_example"]  # fmt: skip
