"""Small ONNX graphs written by hand, in a folder with a manifest that tells the truth about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from router.manifest import FileRecord, GraphRecord, Manifest, ProfileRecord, TensorRecord

Axes = Sequence[int | str]
SAMPLE: Axes = (2, 4)
FILE = "unet/model.onnx"


def tensor(name: str, shape: Axes = SAMPLE, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def graph(
    *nodes: onnx.NodeProto,
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] = (),
    weights: dict[str, NDArray[Any]] | None = None,
    opset: int = 20,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model of these nodes; from `sample` to `out_sample` unless told otherwise."""
    imports = [helper.make_opsetid(domain, 1) for domain in domains]
    return helper.make_model(
        helper.make_graph(
            list(nodes),
            "graph",
            list(inputs) or [tensor("sample")],
            list(outputs) or [tensor("out_sample")],
            [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
        ),
        opset_imports=[helper.make_opsetid("", opset), *imports],
        ir_version=10,
    )


def node(kind: str, given: str, made: str = "out_sample", **attributes: Any) -> onnx.NodeProto:
    """`node("Add", "a b", "c")` is the node `c_of_Add`."""
    return helper.make_node(kind, given.split(), made.split(), name=f"{made}_of_{kind}", **attributes)


def sound() -> onnx.ModelProto:
    return graph(node("MatMul", "sample weight"), weights={"weight": np.eye(4, dtype=np.float32)})


def export_of(folder: Path, model: onnx.ModelProto, **changes: Any) -> Manifest:
    """Saves the model as the only graph of an export, with what a manifest says of it."""
    (folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / FILE)
    record = GraphRecord(
        file=FILE,
        profile="64x64",
        rows=2,
        inputs=tuple(map(told, model.graph.input)),
        outputs=tuple(map(told, model.graph.output)),
    )
    given: dict[str, Any] = {
        "family": "stable-diffusion",
        "pipeline": "StableDiffusionPipeline",
        "profiles": (ProfileRecord(name="64x64", height=64, width=64, dtype="float32", row_buckets=(2,)),),
        "components": {"unet": (record,)},
        "timestep": "per-row",
        "opset": 20,
        "tools": {},
        "source_sha256": "0" * 64,
        "files": {FILE: FileRecord.of(folder / FILE)},
        "runtimes": ("onnxruntime", "openvino", "tensorrt"),
    }
    return Manifest(**given | changes)


def told(value: onnx.ValueInfoProto) -> TensorRecord:
    kind, dims = value.type.tensor_type.elem_type, value.type.tensor_type.shape.dim
    return TensorRecord(
        name=value.name,
        dtype=helper.tensor_dtype_to_np_dtype(kind).name,
        shape=tuple(dim.dim_param or dim.dim_value for dim in dims),
    )


def edited(manifest: Manifest, edit: Callable[[GraphRecord], dict[str, Any]]) -> Manifest:
    """The manifest with another record of its only graph."""
    (record,) = manifest.components["unet"]
    return manifest.model_copy(update={"components": {"unet": (record.model_copy(update=edit(record)),)}})
