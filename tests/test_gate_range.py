"""The range scan: which node leaves float16, and which minus infinity is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from export.range_scan import Ranges, RangeScan
from tests.graphs import graph, node, tensor

HALF = TensorProto.FLOAT16


def half(*nodes: onnx.NodeProto, **weights: NDArray[Any]) -> onnx.ModelProto:
    """Nodes from `sample` to `out_sample`, all in float16."""
    ends = {"inputs": [tensor("sample", kind=HALF)], "outputs": [tensor("out_sample", kind=HALF)]}
    return graph(*nodes, weights=weights, **ends)


def scan(folder: Path, model: onnx.ModelProto, *values: float, external: bool = False) -> Ranges:
    file = folder / "model.onnx"
    onnx.save(model, file, save_as_external_data=external, location="model.onnx_data", size_threshold=0)
    kind = np.float16 if model.graph.input[0].type.tensor_type.elem_type == HALF else np.float32
    return RangeScan(file).run({"sample": np.full((2, 4), value, kind)} for value in values)


def test_the_node_that_overflows_is_named_with_its_weights(tmp_path: Path) -> None:
    weights = {"large.weight": np.full((4, 4), 200, np.float16), "small": np.full((4, 4), 0.01, np.float16)}
    model = half(
        node("Abs", "sample", "positive"),
        node("MatMul", "positive large.weight", "product"),
        node("MatMul", "product small", "out_sample"),
        **weights,
    )
    assert scan(tmp_path, model, 1.0, 50.0) == Ranges(40_000.0, None)
    found = scan(tmp_path, model, 1.0, 100.0).finding
    assert found is not None
    assert found.startswith(
        "leaves the range of float16 at node 'product_of_MatMul' (MatMul with 'large.weight'): "
    )
    assert found.endswith("is beyond 65,504; export in bfloat16 or float32.")


def test_weights_in_a_file_of_their_own_are_found(tmp_path: Path) -> None:
    model = half(node("Mul", "sample weight"), weight=np.full((2, 4), 2000, np.float16))
    assert scan(tmp_path, model, 30.0, external=True) == Ranges(60_000.0, None)
    assert "node 'out_sample_of_Mul'" in str(scan(tmp_path, model, 40.0, external=True).finding)


@pytest.mark.parametrize("lowest", [-np.inf, -65504])
def test_a_mask_is_no_overflow(tmp_path: Path, lowest: float) -> None:
    mask = np.triu(np.full((2, 4), lowest, np.float16), 1)
    masked = [node("Add", "score mask", "masked"), node("Softmax", "masked")]
    model = half(node("Neg", "sample", "score"), *masked, mask=mask)
    assert scan(tmp_path, model, 1000.0) == Ranges(1000.0, None)


def test_an_overflow_before_a_mask_is_still_seen(tmp_path: Path) -> None:
    mask = np.full((2, 4), -np.inf, np.float16)
    model = half(
        node("Mul", "sample sample", "square"), node("Add", "square mask", "masked"),
        node("Softmax", "masked"), mask=mask,
    )  # fmt: skip
    assert "node 'square_of_Mul' (Mul)" in str(scan(tmp_path, model, 1000.0).finding)


def test_large_values_in_float32_inside_a_float16_graph_are_fine_until_they_are_cast(tmp_path: Path) -> None:
    def wide(last: str) -> onnx.ModelProto:
        return half(
            node("Cast", "sample", "wide", to=TensorProto.FLOAT),
            node("Mul", "wide wide", "square"),
            node(last, "square", "narrow"),
            node("Cast", "narrow", to=HALF),
        )

    assert scan(tmp_path, wide("Sqrt"), 1000.0).finding is None
    assert "node 'out_sample_of_Cast' (Cast): " in str(scan(tmp_path, wide("Abs"), 1000.0).finding)


def test_not_a_number_is_named_in_any_dtype(tmp_path: Path) -> None:
    model = graph(node("Sqrt", "sample", "root"), node("Abs", "root"))
    assert scan(tmp_path, model, 4.0).finding is None
    assert scan(tmp_path, model, -4.0).finding == (
        "makes values that are not finite at node 'root_of_Sqrt' (Sqrt); check the source's weights."
    )


def test_an_infinity_that_no_output_sees_is_meant(tmp_path: Path) -> None:
    """T5 takes the logarithm of distance 0, and then chooses the other branch."""
    model = graph(
        node("Log", "sample", "logarithm"),
        node("Greater", "sample one", "far"),
        node("Where", "far logarithm sample"),
        weights={"one": np.ones((2, 4), np.float32)},
    )
    assert scan(tmp_path, model, 0.0).finding is None


def test_a_weight_that_overflowed_when_it_was_converted_is_named(tmp_path: Path) -> None:
    model = half(node("Mul", "sample weight"), weight=np.full((2, 4), np.inf, np.float16))
    assert "node 'out_sample_of_Mul' (Mul with 'weight')" in str(scan(tmp_path, model, 1.0).finding)


def test_the_limit_that_values_are_clamped_to_is_not_the_largest_of_them(tmp_path: Path) -> None:
    model = half(
        node("Cast", "most", "limit", to=HALF),
        node("Neg", "sample", "opposite"),
        node("Min", "opposite limit"),
        most=np.full((2, 4), 65504, np.float32),
    )  # fmt: skip
    assert scan(tmp_path, model, 12.0) == Ranges(12.0, None)
