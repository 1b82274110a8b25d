"""What is changed in a graph after tracing."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto

from export.rewrites import rewrite
from tests.graphs import graph, node, tensor

SCALES = {"none": np.zeros(0, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}


@pytest.mark.parametrize(
    ("kind", "operators"),
    [
        (TensorProto.BFLOAT16, ["Neg", "Cast", "Resize", "Cast", "Abs"]),
        (TensorProto.FLOAT, ["Neg", "Resize", "Abs"]),
    ],
    ids=["bfloat16", "float32"],
)
def test_bfloat16_is_resized_in_float32(kind: int, operators: list[str]) -> None:
    """TensorRT has no other; the values pass through unchanged."""
    given, made = tensor("sample", (1, 2, 4, 4), kind), tensor("out_sample", (1, 2, 8, 8), kind)
    model = graph(
        node("Neg", "sample", "small"),
        node("Resize", "small none scales", "large", mode="nearest"),
        node("Abs", "large"),
        inputs=[given],
        outputs=[made],
        weights=SCALES,
        opset=23,
    )
    model.graph.value_info.extend([tensor("small", (1, 2, 4, 4), kind), tensor("large", (1, 2, 8, 8), kind)])
    traced = onnx_ir.from_proto(model)
    rewrite(traced)
    found = onnx_ir.to_proto(traced)
    onnx.checker.check_model(found, full_check=True)
    assert [each.op_type for each in found.graph.node] == operators
    resize = next(each for each in found.graph.node if each.op_type == "Resize")
    assert [each.s for each in resize.attribute] == [b"nearest"]
    kinds = {value.name: value.type.tensor_type.elem_type for value in found.graph.value_info}
    assert {kinds[resize.input[0]], kinds[resize.output[0]]} == {TensorProto.FLOAT}
    assert kinds["large"] == kind
