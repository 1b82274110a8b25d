"""Components beside their source: a small module in PyTorch, and its graph written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn

from export.capture import fill
from export.components import ROWS, Component, Input
from export.draws import normal
from export.errors import ExportError
from export.parity import GraphParity, Source, compare
from export.tolerances import TOLERANCES, difference
from router.manifest import TensorRecord
from router.types import ShapeProfile
from tests.graphs import FILE, export_of, graph, node, tensor

WEIGHT = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)
CALLS = [{"sample": torch.ones(1, 4)}, {"sample": torch.full((1, 4), -2.0)}]


class Twofold(nn.Module):
    """Two outputs of one shape, so that swapping them is seen by their values alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(WEIGHT), requires_grad=False)

    def forward(self, sample: Tensor) -> tuple[Tensor, ...]:
        product = sample @ self.weight
        return product, product.tanh()


COMPONENT = Component(
    name="unet",
    part="unet",
    rows_kind="bucket",
    inputs=(Input("sample", (ROWS, 4), normal()),),
    output_names=("linear", "bent"),
    shell=lambda part: part,
)


def written(
    weight: NDArray[Any] = WEIGHT,
    outputs: tuple[str, str] = ("linear", "bent"),
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    linear, bent = outputs
    return graph(
        node("MatMul", "sample weight", linear),
        node("Tanh", linear, bent),
        inputs=[tensor("sample", kind=kind)],
        outputs=[tensor("linear", kind=kind), tensor("bent", kind=kind)],
        weights={"weight": weight},
    )


def compared(folder: Path, model: onnx.ModelProto, dtype: str = "float32", **record: Any) -> GraphParity:
    (told,) = export_of(folder, model).components["unet"]
    told = told.model_copy(update=record)
    own = None if dtype == "float32" else Twofold().to(getattr(torch, dtype))
    profile = ShapeProfile("64x64", 64, 64, dtype, (2,))
    return compare(folder, told, Source(COMPONENT, Twofold(), own), profile, CALLS)


def test_a_true_graph_is_within_the_tolerance(tmp_path: Path) -> None:
    found = compared(tmp_path, written())
    assert found.findings == ()
    assert found.error < 1e-6


def test_a_wrong_weight_is_told_with_its_output_and_by_how_much(tmp_path: Path) -> None:
    wrong = WEIGHT.copy()
    wrong[0, 0] += 0.01
    found = compared(tmp_path, written(wrong))
    assert found.error > 1e-3
    (said,) = found.findings
    assert said.startswith(f"`{FILE}` is 0.0")
    assert "away from the source in 'linear' (and 1 more outputs) on" in said
    assert said.endswith("may be 0.0001 in float32; export the model again, or with another `opset`.")


def test_a_fault_that_random_inputs_hide_is_found_on_real_ones(tmp_path: Path) -> None:
    """Below -1.9 the graph goes wrong, which these draws never reach."""
    model = written()
    model.graph.node[0].input[0] = "clipped"
    model.graph.node.insert(0, node("Max", "sample lowest", "clipped"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(-1.99), "lowest"))
    (said,) = compared(tmp_path, model).findings
    assert "on real inputs" in said


def test_swapped_outputs_of_one_shape_are_told_as_such(tmp_path: Path) -> None:
    (said,) = compared(tmp_path, written(outputs=("bent", "linear"))).findings
    assert said in {
        f"`{FILE}` gives 'linear' where 'bent' belongs; swap its outputs back.",
        f"`{FILE}` gives 'bent' where 'linear' belongs; swap its outputs back.",
    }


def test_float16_may_lose_what_the_source_loses_in_it(tmp_path: Path) -> None:
    found = compared(tmp_path, written(WEIGHT.astype(np.float16), kind=TensorProto.FLOAT16), "float16")
    assert found.findings == ()
    assert 1e-5 < found.error < TOLERANCES["float16"].component_error
    assert found.largest_value > 0


def test_an_overflow_in_float16_names_its_node(tmp_path: Path) -> None:
    large = (WEIGHT * 60_000).astype(np.float16)
    (said,) = compared(tmp_path, written(large, kind=TensorProto.FLOAT16), "float16").findings
    assert said.startswith(
        f"`{FILE}` leaves the range of float16 at node 'linear_of_MatMul' (MatMul with 'wei"
    )


def test_not_a_number_in_float32_names_its_node(tmp_path: Path) -> None:
    model = written()
    model.graph.node[0].output[0] = "product"
    model.graph.node.insert(1, node("Sqrt", "product", "linear"))
    found = compared(tmp_path, model)
    assert found.error == float("inf")
    assert "makes values that are not finite at node 'linear_of_Sqrt' (Sqrt)" in found.findings[0]


def test_a_graph_that_the_runtime_refuses_is_told(tmp_path: Path) -> None:
    model = written()
    model.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match=f"`{FILE}` is refused by onnxruntime: "):
        compared(tmp_path, model)


def test_an_open_batch_axis_is_tried_with_several_numbers_of_rows(tmp_path: Path) -> None:
    open_axis = TensorRecord(name="sample", dtype="float32", shape=("batch_size", 4))
    model = written()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch_size"
    assert compared(tmp_path, model, inputs=(open_axis,)).findings == ()
    with pytest.raises(ExportError, match="invalid dimensions"):  # a fixed axis, told as open
        compared(tmp_path, written(), inputs=(open_axis,))


@pytest.mark.parametrize(
    ("made", "reference", "expected"),
    [
        ([0.5], [0.25], 0.25),
        ([500.0], [400.0], 0.25),
        ([np.nan], [0.0], float("inf")),
        ([0.0, 0.0], [0.0], float("inf")),
    ],
)
def test_a_difference_is_absolute_up_to_one_and_a_share_beyond(
    made: list[float], reference: list[float], expected: float
) -> None:
    assert difference(np.array(made), np.array(reference)) == expected


def test_rounding_widens_the_tolerance_but_an_overflow_of_the_source_does_not() -> None:
    tolerance = TOLERANCES["float16"]
    assert tolerance.allowed(0.1) == 0.2
    assert tolerance.allowed(0.0) == tolerance.allowed(float("inf")) == tolerance.component_error


def test_rows_are_put_together_from_calls_at_unlike_timesteps() -> None:
    unet = Component(
        name="unet",
        part="unet",
        rows_kind="bucket",
        inputs=(Input("sample", (ROWS, 4), normal()), Input("timestep", (ROWS,), normal())),
        output_names=("out_sample",),
        shell=lambda part: part,
    )
    calls = [{"sample": torch.full((2, 4), float(at)), "timestep": torch.tensor(at)} for at in (900, 500)]
    filled = fill(unet, calls, 6)
    assert filled["timestep"].tolist() == [900, 900, 500, 500, 900, 900]
    assert filled["sample"][:, 0].tolist() == [900, 900, 500, 500, 900, 900]


def test_rows_of_one_scalar_timestep_are_those_of_one_call() -> None:
    unet = Component(
        name="unet",
        part="unet",
        rows_kind="bucket",
        inputs=(Input("sample", (ROWS, 4), normal()), Input("timestep", (), normal())),
        output_names=("out_sample",),
        shell=lambda part: part,
    )
    calls = [{"sample": torch.full((2, 4), float(at)), "timestep": torch.tensor(at)} for at in (900, 500)]
    filled = fill(unet, calls, 3)
    assert filled["timestep"].shape == ()
    assert filled["sample"][:, 0].tolist() == [900, 900, 900]
