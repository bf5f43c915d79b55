"""What goes into a model and what comes out: names, dtypes, shapes, and the check of a caller's inputs.

    arrays, lists, DataFrames, dicts ──Signature.check──► Checked(tensors, rows, single)

A check never loses information in silence: values that would change on the way to the model's dtype are refused.
"""

from modelserve.tensors.signature import Signature
from modelserve.tensors.spec import OIP_DATATYPES, Array, Checked, Tensors, TensorSpec

__all__ = ["OIP_DATATYPES", "Array", "Checked", "Signature", "TensorSpec", "Tensors"]
