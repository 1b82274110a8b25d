"""Which operators of ONNX each runtime knows: lists with their source, and what a graph has beyond them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx

from router.manifest import RUNTIMES, Runtime


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MAX_OPSET: Mapping[Runtime, int] = {"openvino": 24, "tensorrt": 24}
"""The newest opset that the list below tells of. ONNX Runtime follows ONNX."""

_TENSORRT = _names(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
    BlackmanWindow Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos
    Cosh CumSum DeformConv DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand
    EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization GRU HammingWindow HannWindow
    Hardmax HardSigmoid HardSwish Identity If InstanceNormalization IsInf IsNaN LayerNormalization
    LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool LRN LSTM MatMul Max MaxPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or Pad Pow PRelu
    QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1
    ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize ReverseSequence RMSNormalization RNN RoiAlign RotaryEmbedding
    Round Scan ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax
    Softplus Softsign SpaceToDepth Split Sqrt Squeeze STFT Sub Sum Tan Tanh TensorScatter ThresholdedRelu
    Tile TopK Transpose Trilu Unsqueeze Where Xor
    """
)
"""Source: docs/operators.md of onnx-tensorrt for TensorRT 10.15, opsets 9 to 24, those marked Y."""

_OPENVINO = _names(
    """
    Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool
    BatchNormalization Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast
    CastLike Ceil Celu CenterCropPad Clip Col2Im Compress Concat Constant ConstantOfShape Conv ConvInteger
    ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear DFT Div Dropout DynamicQuantizeLinear
    Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization GRU
    HammingWindow HannWindow Hardmax HardSigmoid HardSwish Identity If InstanceNormalization IsInf IsNaN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool LRN LSTM
    MatMul MatMulInteger Max MaxPool MaxRoiPool Mean MeanVarianceNormalization Min Mish Mod Mul
    Multinomial Neg NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not OneHot Or Pad Pow PRelu
    QLinearConv QLinearMatMul QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike
    Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RMSNormalization RNN RoiAlign
    RotaryEmbedding Round Scan ScatterElements ScatterND Selu SequenceAt Shape Shrink Sigmoid Sign Sin
    Sinh Size Slice Softmax SoftmaxCrossEntropyLoss Softplus Softsign SpaceToDepth Split Sqrt Squeeze STFT
    Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Where Xor
    """
)
"""Source: measured. Those of opset 24 for which the ONNX front end of OpenVINO 2026.4.1 has a translator."""

_LISTED: Mapping[Runtime, frozenset[str]] = {"openvino": _OPENVINO, "tensorrt": _TENSORRT}


def unknown_operators(model: onnx.ModelProto, runtime: Runtime) -> list[str]:
    """Operators of the graph that this runtime lacks, `domain::Operator` where the domain is not ONNX's own.

    ONNX Runtime is held to what the graph's own opset has, so that no version of it has to guess.
    """
    opset = opset_of(model)
    used = {(node.domain, node.op_type) for node in _nodes(model.graph.node)}
    return sorted(
        f"{domain}::{name}" if domain else name
        for domain, name in used
        if domain not in ("", "ai.onnx") or not _knows(runtime, name, opset)
    )


def runtimes_of(files: Iterable[Path]) -> tuple[Runtime, ...]:
    """The runtimes that know every operator of all these graphs, for the manifest."""
    models = [onnx.load(file, load_external_data=False) for file in files]
    return tuple(
        runtime
        for runtime in RUNTIMES
        if all(opset_of(model) <= MAX_OPSET.get(runtime, opset_of(model)) for model in models)
        and not any(unknown_operators(model, runtime) for model in models)
    )


def opset_of(model: onnx.ModelProto) -> int:
    """Version of ONNX's own operators; 0 for a graph that names none."""
    return next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)


def _knows(runtime: Runtime, name: str, opset: int) -> bool:
    if runtime in _LISTED:
        return name in _LISTED[runtime]
    return onnx.defs.has(name, opset) and not onnx.defs.get_schema(name, opset).deprecated


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Those inside of `If` and `Loop`, too."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)
