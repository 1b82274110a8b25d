"""Rewrites: what is changed in every graph after tracing. No number changes."""

from __future__ import annotations

import onnx_ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass


def rewrite(model: onnx_ir.Model) -> None:
    """Drops stack traces with the paths of this machine, and makes einsums that only permute transposes."""
    ClearMetadataAndDocStringPass()(model)
    for node in list(model.graph):
        if node.op_type == "Einsum" and (order := _permutation(node.attributes["equation"].as_string())):
            _replace_by_transpose(model.graph, node, order)


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
