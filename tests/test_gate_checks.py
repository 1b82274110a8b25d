"""The gate's checks that run nothing: each planted fault has its own sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from export.checks import check_folder
from export.operators import runtimes_of, unknown_operators
from router.manifest import GraphRecord, TensorRecord
from tests.graphs import FILE, edited, export_of, graph, node, sound, tensor


def only_finding(folder: Path, model: onnx.ModelProto, **changes: Any) -> str:
    (said,) = check_folder(folder, export_of(folder, model, **changes))
    return said


def test_a_sound_graph_passes(tmp_path: Path) -> None:
    assert check_folder(tmp_path, export_of(tmp_path, sound())) == []


def test_a_sound_graph_with_its_weights_outside_passes_and_says_when_they_are_gone(tmp_path: Path) -> None:
    model = sound()
    manifest = export_of(tmp_path, model)
    onnx.save(
        model, tmp_path / FILE, save_as_external_data=True, location="model.onnx_data", size_threshold=0
    )
    manifest = export_of(tmp_path, onnx.load(tmp_path / FILE, load_external_data=False))
    assert check_folder(tmp_path, manifest) == []
    (tmp_path / "unet/model.onnx_data").unlink()
    (said,) = check_folder(tmp_path, manifest)
    assert said.startswith("`unet/model.onnx` is not valid ONNX (Data of TensorProto")
    assert str(tmp_path) not in said


def test_a_truncated_graph_is_no_graph(tmp_path: Path) -> None:
    manifest = export_of(tmp_path, sound())
    file = tmp_path / FILE
    file.write_bytes(file.read_bytes()[:-20])
    (said,) = check_folder(tmp_path, manifest)
    assert said.startswith("`unet/model.onnx` has 196 bytes instead of 216; copy")
    export_of(tmp_path, sound())
    file.write_bytes(file.read_bytes()[:-20])
    manifest = manifest.model_copy(update={"files": {}})
    (said,) = check_folder(tmp_path, manifest)
    assert said.startswith("`unet/model.onnx` is not valid ONNX (Unable to parse")


def test_shapes_that_do_not_fit_are_no_valid_graph(tmp_path: Path) -> None:
    model = graph(node("MatMul", "sample weight"), weights={"weight": np.eye(3, dtype=np.float32)})
    said = only_finding(tmp_path, model)
    assert "is not valid ONNX" in said
    assert "Incompatible dimensions for matrix multiplication" in said


def test_another_opset_is_named(tmp_path: Path) -> None:
    assert only_finding(tmp_path, sound(), opset=23) == (
        "`unet/model.onnx` has opset 20, but the manifest says 23; export the model again."
    )


def test_an_opset_that_a_runtime_is_not_known_for_is_named(tmp_path: Path) -> None:
    model = sound()
    model.opset_import[0].version = 25
    said = check_folder(tmp_path, export_of(tmp_path, model, opset=25, runtimes=("tensorrt",)))
    assert said == [
        "`unet/model.onnx` has opset 25, and of tensorrt it is known for 24 at most;"
        " export with a lower `opset`."
    ]


def test_an_operator_that_a_runtime_lacks_is_named(tmp_path: Path) -> None:
    model = graph(
        node("Det", "sample"), inputs=[tensor("sample", (2, 4, 4))], outputs=[tensor("out_sample", (2,))]
    )
    found = check_folder(tmp_path, export_of(tmp_path, model))
    assert found == [
        f"`unet/model.onnx` has operators that {runtime} lacks (Det);"
        f" try another `opset` or leave {runtime} out."
        for runtime in ("openvino", "tensorrt")
    ]
    assert runtimes_of([tmp_path / FILE]) == ("onnxruntime",)


def test_an_operator_of_another_house_is_named_with_its_domain(tmp_path: Path) -> None:
    fused = node("FusedMatMul", "sample sample", domain="com.microsoft")
    model = graph(fused, domains=["com.microsoft"])
    manifest = export_of(tmp_path, model, runtimes=("onnxruntime",))
    found = check_folder(tmp_path, manifest)
    assert "has operators that onnxruntime lacks (com.microsoft::FusedMatMul)" in found[0]
    assert runtimes_of([tmp_path / FILE]) == ()


def test_an_operator_newer_than_the_opset_is_unknown_to_onnx_runtime() -> None:
    model = graph(node("Attention", "sample sample sample"), opset=20)
    assert unknown_operators(model, "onnxruntime") == ["Attention"]
    model.opset_import[0].version = 23
    assert unknown_operators(model, "onnxruntime") == []


def test_operators_inside_of_branches_are_seen() -> None:
    branch = onnx.helper.make_graph([node("Det", "sample", "made")], "branch", [], [tensor("made", (2,))])
    model = graph(node("If", "sample", "out_sample", then_branch=branch, else_branch=branch))
    assert unknown_operators(model, "tensorrt") == ["Det"]


@pytest.mark.parametrize("names", [("text", "sample"), ("sample",)])
def test_inputs_in_another_order_or_number_are_named(tmp_path: Path, names: tuple[str, ...]) -> None:
    model = graph(node("Add", "sample text"), inputs=[tensor("sample"), tensor("text")])
    manifest = export_of(tmp_path, model)
    by_name = {each.name: each for each in manifest.components["unet"][0].inputs}
    manifest = edited(manifest, lambda record: {"inputs": tuple(by_name[name] for name in names)})
    assert check_folder(tmp_path, manifest) == [
        "`unet/model.onnx` has the inputs sample, text, but the manifest says"
        f" {', '.join(names)}; export the model again."
    ]


def test_swapped_outputs_are_named(tmp_path: Path) -> None:
    model = graph(
        node("Neg", "sample", "pooled"), node("Abs", "sample", "hidden"),
        outputs=[tensor("pooled"), tensor("hidden")],
    )  # fmt: skip
    manifest = export_of(tmp_path, model)
    manifest = edited(manifest, lambda record: {"outputs": record.outputs[::-1]})
    (said,) = check_folder(tmp_path, manifest)
    assert "has the outputs pooled, hidden, but the manifest says hidden, pooled" in said


@pytest.mark.parametrize(
    ("change", "told"),
    [({"dtype": "float16"}, "float16 [2, 4]"), ({"shape": (8, 4)}, "float32 [8, 4]")],
)
def test_another_dtype_or_shape_is_named(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    def edit(record: GraphRecord) -> dict[str, tuple[TensorRecord, ...]]:
        return {"inputs": (record.inputs[0].model_copy(update=change),)}

    assert check_folder(tmp_path, edited(export_of(tmp_path, sound()), edit)) == [
        "`unet/model.onnx` has 'sample' float32 [2, 4] among its inputs,"
        f" but the manifest says 'sample' {told}; export the model again."
    ]


@pytest.mark.parametrize("axes", [("batch_size", 4), (2, "width"), ("batch_size", "width")])
def test_a_dynamic_axis_is_named_unless_it_is_the_batch_and_told(tmp_path: Path, axes: Any) -> None:
    made = tensor("out_sample", axes)
    manifest = export_of(
        tmp_path, graph(node("Abs", "sample"), inputs=[tensor("sample", axes)], outputs=[made])
    )
    found = check_folder(tmp_path, manifest)
    if axes == ("batch_size", 4):
        assert found == []
        static = edited(
            manifest, lambda record: {"inputs": (TensorRecord(name="sample", dtype="float32", shape=(2, 4)),)}
        )
        assert any(
            "'batch_size', axis 0 of 'sample'; only the batch axis" in said
            for said in check_folder(tmp_path, static)
        )
    else:
        assert any("has a dynamic axis: 'width', axis 1 of 'sample'" in said for said in found)


def test_a_node_whose_shape_depends_on_values_is_named(tmp_path: Path) -> None:
    model = graph(
        node("NonZero", "sample", "where"),
        node("Cast", "where", "places", to=TensorProto.FLOAT),
        node("ReduceSum", "places", "out_sample", keepdims=0),
        outputs=[tensor("out_sample", ())],
    )
    found = check_folder(tmp_path, export_of(tmp_path, model))
    assert found[0].startswith(
        "`unet/model.onnx` has node 'where_of_NonZero' (NonZero) (and 1 more) of a shape that is not known"
    )


def test_an_int64_input_is_named_unless_it_is_input_ids(tmp_path: Path) -> None:
    def cast(name: str) -> onnx.ModelProto:
        return graph(node("Cast", name, to=TensorProto.FLOAT), inputs=[tensor(name, kind=TensorProto.INT64)])

    assert check_folder(tmp_path, export_of(tmp_path, cast("input_ids"))) == []
    assert only_finding(tmp_path, cast("txt_ids")) == (
        "`unet/model.onnx` has the int64 tensor 'txt_ids'; only `input_ids` may be int64, make it a float."
    )


def test_int64_between_the_nodes_is_named(tmp_path: Path) -> None:
    model = graph(
        node("Shape", "sample", "shape"), node("Expand", "sample shape"),
    )  # fmt: skip
    assert only_finding(tmp_path, model).startswith(
        "`unet/model.onnx` computes int64 tensors, first at node 'shape_of_Shape' (Shape);"
    )


def test_a_missing_bucket_is_named(tmp_path: Path) -> None:
    manifest = export_of(tmp_path, sound())
    (profile,) = manifest.profiles
    wider = profile.model_copy(update={"row_buckets": (2, 8)})
    manifest = manifest.model_copy(update={"profiles": (wider,)})
    assert check_folder(tmp_path, manifest) == ["`unet` has no graph of 8 rows at 64x64; export again."]
