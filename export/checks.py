"""Checks of graphs that need no source and run nothing: sound, static, and what the manifest says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import onnx
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

from export.operators import MAX_OPSET, opset_of, unknown_operators
from router.manifest import GraphRecord, Manifest, TensorRecord

DENOISERS = ("unet", "transformer")
_MAX_SAID = 200  # characters of a library's own sentence

Check: TypeAlias = Callable[[onnx.ModelProto, GraphRecord, Manifest], Iterator[str]]
"""One rest of a sentence that begins with the graph's file, for everything that is wrong."""


def check_folder(folder: Path, manifest: Manifest) -> list[str]:
    """One sentence for everything wrong with the files and graphs of an export. Reads all its files."""
    findings = [*manifest.check_files(folder), *_missing_graphs(manifest)]
    changed = {name for name in manifest.files if any(each.startswith(f"`{name}`") for each in findings)}
    records = {
        graph.file: graph for graphs in manifest.components.values() for graph in graphs
    }  # text encoders of several profiles may share one file
    for file, record in records.items():
        if file not in changed:
            findings += check_graph(folder, record, manifest)
    return findings


def check_graph(folder: Path, record: GraphRecord, manifest: Manifest) -> list[str]:
    """One sentence for everything wrong with one graph."""
    file = folder / record.file
    try:
        onnx.checker.check_model(str(file), full_check=True)
        # A graph without its weights is far below protobuf's 2 GiB, also where these are not.
        model = onnx.load(file, load_external_data=False)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (ValidationError, InferenceError) as exc:
        return [f"`{record.file}` is not valid ONNX ({_said(exc, folder)}); export the model again."]
    return [f"`{record.file}` {said}" for check in _CHECKS for said in check(model, record, manifest)]


# --- one check each


def _check_opset(model: onnx.ModelProto, record: GraphRecord, manifest: Manifest) -> Iterator[str]:
    opset = opset_of(model)
    if opset != manifest.opset:
        yield f"has opset {opset}, but the manifest says {manifest.opset}; export the model again."
    for runtime in manifest.runtimes:
        if opset > MAX_OPSET.get(runtime, opset):
            yield (
                f"has opset {opset}, and of {runtime} it is known for {MAX_OPSET[runtime]} at most;"
                " export with a lower `opset`."
            )


def _check_operators(model: onnx.ModelProto, record: GraphRecord, manifest: Manifest) -> Iterator[str]:
    for runtime in manifest.runtimes:
        unknown = unknown_operators(model, runtime)
        if unknown:
            nodes = ", ".join(unknown)
            yield f"has operators that {runtime} lacks ({nodes}); try another `opset` or leave {runtime} out."


def _check_tensors(model: onnx.ModelProto, record: GraphRecord, manifest: Manifest) -> Iterator[str]:
    """Names, their order, dtypes and shapes."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    for kind, values, told in (
        ("inputs", inputs, record.inputs),
        ("outputs", model.graph.output, record.outputs),
    ):
        found = [_record(value) for value in values]
        if [each.name for each in found] != [each.name for each in told]:
            yield (
                f"has the {kind} {_listed(each.name for each in found)}, but the manifest says"
                f" {_listed(each.name for each in told)}; export the model again."
            )
            continue
        for one, other in zip(found, told, strict=True):
            if one != other:
                yield (
                    f"has {_described(one)} among its {kind}, but the manifest says {_described(other)};"
                    " export the model again."
                )


def _check_axes(model: onnx.ModelProto, record: GraphRecord, manifest: Manifest) -> Iterator[str]:
    """Nothing may vary but the batch axis, and that only where the manifest says so."""
    for value in (*model.graph.input, *model.graph.output):
        for index, axis in enumerate(_record(value).shape):
            if isinstance(axis, str) and (index > 0 or not record.dynamic_batch):
                yield (
                    f"has a dynamic axis: {axis or 'without a name'!r}, axis {index} of {value.name!r};"
                    " only the batch axis may vary, and only in an export with a dynamic batch."
                )
    if not record.dynamic_batch:
        yield from _dynamic_nodes(model)


def _dynamic_nodes(model: onnx.ModelProto) -> Iterator[str]:
    shaped = {value.name: _record(value).shape for value in model.graph.value_info}
    shaped |= {value.name: _record(value).shape for value in model.graph.output}
    varying = [
        node
        for node in model.graph.node
        if any(
            name and any(isinstance(axis, str) for axis in shaped.get(name, ("",))) for name in node.output
        )
    ]
    if varying:
        yield (
            f"has {_counted(varying)} of a shape that is not known before it runs, though all inputs are"
            " static; what depends on values must be computed outside of the graph."
        )


def _check_int64(model: onnx.ModelProto, record: GraphRecord, manifest: Manifest) -> Iterator[str]:
    """Indices into a vocabulary may be int64, and what is computed from them."""
    for value in (*model.graph.input, *model.graph.output):
        if _record(value).dtype == "int64" and value.name != "input_ids":
            yield f"has the int64 tensor {value.name!r}; only `input_ids` may be int64, make it a float."
    if not record.dynamic_batch and not any(each.name == "input_ids" for each in record.inputs):
        long = {value.name for value in model.graph.value_info if _record(value).dtype == "int64"}
        computed = [
            node for node in model.graph.node if node.op_type != "Constant" and long & set(node.output)
        ]
        if computed:
            yield (
                f"computes int64 tensors, first at {_counted(computed)}; only graphs with `input_ids` may,"
                " in the others such arithmetic on shapes must be folded into constants."
            )


_CHECKS: tuple[Check, ...] = (_check_opset, _check_operators, _check_tensors, _check_axes, _check_int64)


def _missing_graphs(manifest: Manifest) -> Iterator[str]:
    for component, graphs in manifest.components.items():
        there = {(graph.profile, graph.rows) for graph in graphs}
        open_batch = {graph.profile for graph in graphs if graph.dynamic_batch}
        for profile in manifest.profiles:
            buckets = profile.row_buckets if component in DENOISERS else (1,)
            for rows in buckets if profile.name not in open_batch else ():
                if (profile.name, rows) not in there:
                    yield f"`{component}` has no graph of {rows} rows at {profile.name}; export again."


# --- what is said


def _record(value: onnx.ValueInfoProto) -> TensorRecord:
    """As the manifest has it; an axis of no known length and no name is `""`."""
    tensor = value.type.tensor_type
    axes: Iterable[Any] = tensor.shape.dim if tensor.HasField("shape") else ()
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else axis.dim_param for axis in axes)
    return TensorRecord.model_construct(name=value.name, dtype=_dtype(tensor.elem_type), shape=shape)


def _dtype(kind: int) -> str:
    if kind == onnx.TensorProto.BFLOAT16:
        return "bfloat16"
    return onnx.helper.tensor_dtype_to_np_dtype(kind).name if kind else "unknown"


def _described(tensor: TensorRecord) -> str:
    return f"{tensor.name!r} {tensor.dtype} [{_listed(tensor.shape)}]"


def _counted(nodes: list[onnx.NodeProto]) -> str:
    more = f" (and {len(nodes) - 1} more)" if len(nodes) > 1 else ""
    return f"node {nodes[0].name!r} ({nodes[0].op_type}){more}"


def _listed(words: Iterable[object]) -> str:
    return ", ".join(map(str, words)) or "none"


def _said(exc: Exception, folder: Path) -> str:
    """The library's sentence on one line, without the path of this machine."""
    said = " ".join(str(exc).replace(f"{folder}/", "").split()).rstrip(". ")
    return said if len(said) <= _MAX_SAID else f"{said[:_MAX_SAID]}..."
