"""Rewrites: what is changed in every graph after tracing. In float32 no number changes."""

from __future__ import annotations

import numpy as np
import onnx_ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass


def rewrite(model: onnx_ir.Model) -> None:
    """Drop this machine's paths; einsums that permute, timesteps and resizing as the functions below say."""
    ClearMetadataAndDocStringPass()(model)
    for value in model.graph.inputs:
        if value.dtype == onnx_ir.DataType.FLOAT:
            _keep_exact(model.graph, value)
    for node in list(model.graph):
        if node.op_type == "Einsum" and (order := _permutation(node.attributes["equation"].as_string())):
            _replace_by_transpose(model.graph, node, order)
        elif node.op_type == "Resize" and node.outputs[0].dtype == onnx_ir.DataType.BFLOAT16:
            _resize_in_float32(model.graph, node)


def _permutation(equation: str) -> list[int] | None:
    """The order of axes in which `nhwpqc->nchpwq` takes them; `None` where it does more than permute."""
    given, _, wanted = equation.replace(" ", "").partition("->")
    if "," in given or len(set(given)) != len(given) or sorted(given) != sorted(wanted):
        return None
    return [given.index(axis) for axis in wanted]


def _replace_by_transpose(graph: onnx_ir.Graph, node: onnx_ir.Node, order: list[int]) -> None:
    """SD3 unpatches by einsum, which has no bfloat16 in any opset."""
    transposed = onnx_ir.node("Transpose", [node.inputs[0]], {"perm": order})
    old, new = node.outputs[0], transposed.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    onnx_ir.convenience.replace_nodes_and_values(graph, node, [node], [transposed], [old], [new])


def _resize_in_float32(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    """TensorRT has no Resize of bfloat16. Nearest neighbours, all that the families resize by, stay equal."""
    old, given = node.outputs[0], node.inputs[0]
    assert given is not None
    widened = onnx_ir.node("Cast", [given], {"to": onnx_ir.DataType.FLOAT})
    resized = onnx_ir.node("Resize", [widened.outputs[0], *node.inputs[1:]], node.attributes)
    narrowed = onnx_ir.node("Cast", [resized.outputs[0]], {"to": onnx_ir.DataType.BFLOAT16})
    for made, shape in ((widened, given.shape), (resized, old.shape)):
        made.outputs[0].shape, made.outputs[0].type = shape, onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    new = narrowed.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    onnx_ir.convenience.replace_nodes_and_values(
        graph, node, [node], [widened, resized, narrowed], [old], [new]
    )


_HALVES = (onnx_ir.DataType.FLOAT16, onnx_ir.DataType.BFLOAT16)


def _keep_exact(graph: onnx_ir.Graph, given: onnx_ir.Value) -> None:
    """Stay in float32 up to the sinusoids.

    FLUX rounds its timestep and guidance to the model's dtype before and after it takes them times 1000:
    in float16 a guidance of 3.4 is then off by a radian.
    """
    for node in list(given.consumers()):
        chain = _rounded(node)
        for each in chain:
            _make_float32(graph, each)


def _rounded(node: onnx_ir.Node) -> list[onnx_ir.Node]:
    """From a cast down, over scaling and reshaping alone, to the node before the cast up; or nothing."""
    if node.op_type != "Cast" or node.outputs[0].dtype not in _HALVES:
        return []
    chain = [node]
    while len(followers := list(chain[-1].outputs[0].consumers())) == 1:
        (follower,) = followers
        if follower.op_type == "Cast":
            return chain if follower.outputs[0].dtype == onnx_ir.DataType.FLOAT else []
        if follower.op_type not in ("Mul", "Unsqueeze", "Reshape"):
            return []
        chain.append(follower)
    return []


def _make_float32(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    node.outputs[0].dtype = onnx_ir.DataType.FLOAT
    if node.op_type == "Cast":
        node.attributes["to"] = onnx_ir.AttrInt64("to", onnx_ir.DataType.FLOAT)
    for index, operand in enumerate(node.inputs):
        if operand is not None and operand.const_value is not None and operand.dtype in _HALVES:
            values = operand.const_value.numpy().astype(np.float32)
            exact = onnx_ir.tensor(values, name=f"{operand.name}_exact")
            node.replace_input_with(index, _initializer(graph, exact))


def _initializer(graph: onnx_ir.Graph, tensor: onnx_ir.TensorProtocol) -> onnx_ir.Value:
    assert tensor.name
    if tensor.name not in graph.initializers:
        kind, shape = onnx_ir.TensorType(tensor.dtype), onnx_ir.Shape(tensor.shape.numpy())
        graph.register_initializer(
            onnx_ir.Value(name=tensor.name, shape=shape, type=kind, const_value=tensor)
        )
    return graph.initializers[tensor.name]
