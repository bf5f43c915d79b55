"""8-bit integers for weights and activations.

    dynamic   ranges of activations are measured at run time; for matrices
    static    ranges are fixed from samples, quantise/dequantise pairs in the graph; for convolutions

Never dynamic for convolutions: onnxruntime's ConvInteger was measured 5 to 7 times slower than float32.

Without integer dot products (VNNI and the like) onnxruntime adds two products of unsigned activations and signed
weights in 16 bits, where full 8-bit weights overflow: there signed weights get 7 bits. Unsigned weights are added in 32
bits everywhere, and keep their 8.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from modelserve.errors import OptimizationError, PlanError
from modelserve.optimize.draft import Calibration, Draft, InapplicableError, Pass
from modelserve.optimize.machine import has_integer_dot_products
from modelserve.optimize.plan import Ranges
from modelserve.optimize.surgery import Graph, split_gemms, tidy
from modelserve.optimize.weight_only import narrow_tables

if TYPE_CHECKING:
    from onnx import ModelProto

_ALREADY = {"QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "MatMulNBits", "QLinearConv"}


def int8_dynamic(*, signed: bool = True) -> Pass:
    """Dynamic quantisation of matrices, per channel, and of embedding tables, per row."""

    def change(draft: Draft, _calibration: Calibration) -> Draft:
        layers = dense_layers(draft.model)
        if not layers:
            raise InapplicableError("The graph has no matrix to quantise.")
        model = quantized(draft.model, layers, signed=signed)
        narrow_tables(model)
        tidy(model)
        return Draft(model, draft.session)

    return Pass("int8", change, {"ranges": "dynamic", "signed": signed, "weight_bits": weight_bits(signed=signed)})


def int8_static(ranges: Ranges = Ranges.MINMAX) -> Pass:
    """Static quantisation of matrices and convolutions, per channel, with ranges from the samples."""

    def change(draft: Draft, calibration: Calibration) -> Draft:
        refuse_quantized(draft.model)
        graph = Graph(draft.model)
        if not any(graph.is_convolution(node) or graph.is_dense(node) for node in graph.nodes):
            raise InapplicableError("The graph has no matrix and no convolution to quantise.")
        return quantize_statically(draft, calibration, ranges)

    return Pass("int8", change, {"ranges": ranges.value, "weight_bits": weight_bits(signed=True)})


def dense_layers(model: ModelProto) -> list[str]:
    """Names of the nodes that multiply by constant matrices."""
    refuse_quantized(model)
    graph = Graph(model)
    return [node.name for node in graph.nodes if graph.is_dense(node)]


def quantized(model: ModelProto, layers: Sequence[str], *, signed: bool = True) -> ModelProto:
    """A copy in which these dense layers are quantised dynamically; the other nodes keep their names."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    prepared = _prepared(model)
    split_gemms(prepared)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        quantize_dynamic(
            prepared,
            target,
            weight_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            per_channel=True,
            reduce_range=weight_bits(signed=signed) < 8,
            nodes_to_quantize=list(layers),
            op_types_to_quantize=["MatMul", "Gemm"],
            # Shapes and types end at operators of onnxruntime's own, behind which floats go on.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        return onnx.load(target)


def quantize_statically(draft: Draft, calibration: Calibration, ranges: Ranges, *, wide: Sequence[str] = ()) -> Draft:
    """Quantise all layers statically, except for those named in `wide`.

    Raises:
        PlanError: there are no samples.
        OptimizationError: the ranges could not be found.
    """
    if not calibration:
        raise PlanError("Static quantisation fixes ranges from samples, of which there are none. Give samples=.")
    # The histogram methods print what they do.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        target = Path(folder) / "int8.onnx"
        try:
            _quantize_static(_prepared(draft.model), target, calibration, ranges, wide)
        except ValueError as error:
            raise OptimizationError(f"Quantising with ranges by {ranges.value} failed: {error}") from error
        quantized = onnx.load(target)
    tidy(quantized)
    return Draft(quantized, draft.session)


def weight_bits(*, signed: bool) -> int:
    """How many bits of a quantised weight are used."""
    return 7 if signed and not has_integer_dot_products() else 8


def refuse_quantized(model: ModelProto) -> None:
    """Refuse a graph that is quantised already.

    Raises:
        InapplicableError: it is.
    """
    found = sorted(_ALREADY & {node.op_type for node in model.graph.node})
    if found:
        raise InapplicableError(f"The graph is quantised already (it has {', '.join(found)}).")


def _prepared(model: ModelProto) -> ModelProto:
    # The quantiser leaves its advice to pre-process first unsaid where the model says that this was done.
    prepared = Draft(model).copy_model()
    prepared.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    return prepared


def _quantize_static(
    model: ModelProto, target: Path, calibration: Calibration, ranges: Ranges, wide: Sequence[str]
) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    methods = {
        Ranges.MINMAX: CalibrationMethod.MinMax,
        Ranges.ENTROPY: CalibrationMethod.Entropy,
        Ranges.PERCENTILE: CalibrationMethod.Percentile,
    }
    quantize_static(
        model,
        target,
        _reader(calibration),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=weight_bits(signed=True) < 8,
        calibrate_method=methods[ranges],
        nodes_to_exclude=list(wide),
        op_types_to_quantize=["MatMul", "Gemm", "Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "Relu"],
    )


def _reader(calibration: Calibration) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
        def __init__(self) -> None:
            self._batches = _of_one_size(calibration)

        def get_next(self) -> Any:
            return next(self._batches, None)

    return Reader()


def _of_one_size(calibration: Calibration) -> Iterator[dict[str, Any]]:
    # The histogram methods refuse batches of differing sizes.
    size = next(iter(calibration[0].values())).shape[:1]
    for batch in calibration:
        if next(iter(batch.values())).shape[:1] == size:
            yield dict(batch)
