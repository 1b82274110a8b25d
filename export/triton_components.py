"""The component models of a Triton repository: which there are, and the config.pbtxt of each.

Under `python` one model holds all graphs of a component and joins the rows of several requests by itself;
Triton's own backends load one graph each, and join rows only where the graph leaves their number open.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tritonclient.grpc import model_config_pb2 as schema

from export.errors import UnsupportedExportError
from export.triton_settings import TritonRuntime, TritonSettings
from router.manifest import GraphRecord, Manifest

BACKENDS: Final[dict[TritonRuntime, str]] = {
    "python": "python",
    "onnxruntime": "onnxruntime",
    "tensorrt": "tensorrt",
}
ROWLESS: Final = frozenset({"img_ids", "txt_ids"})
"""Inputs of FLUX whose first axis counts tokens."""

_DTYPES: Final = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
}


@dataclass(frozen=True)
class ComponentModel:
    """One model of the repository, over the graphs that it runs."""

    name: str
    graphs: tuple[GraphRecord, ...]
    max_rows: int
    """Most rows of one run where Triton may join requests; 0 where it may not, and dims are whole."""


def component_models(manifest: Manifest, settings: TritonSettings) -> list[ComponentModel]:
    """All models of the chosen profiles. Raises `UnsupportedExportError` for a profile that is not there."""
    chosen = _chosen(manifest, settings)
    models = []
    for component, records in manifest.components.items():
        _check_rows(component, records, settings.runtime)
        graphs = {record.file: record for record in records if record.profile in chosen}
        groups = [tuple(graphs.values())] if settings.runtime == "python" else [(g,) for g in graphs.values()]
        for group in groups:
            name = _name(settings.name, component, group, alone=len(groups) == 1)
            models.append(ComponentModel(name, group, _max_rows(group, manifest, settings.runtime)))
    return models


def config(model: ComponentModel, settings: TritonSettings, source: str) -> Any:
    """The model's configuration as Triton's own message; `source` leads from its version to the graphs."""
    found = schema.ModelConfig(
        name=model.name, backend=BACKENDS[settings.runtime], max_batch_size=model.max_rows
    )
    found.input.extend(_tensors(schema.ModelInput, model, settings, "inputs"))
    found.output.extend(_tensors(schema.ModelOutput, model, settings, "outputs"))
    kind = schema.ModelInstanceGroup.KIND_GPU if settings.on_gpu else schema.ModelInstanceGroup.KIND_CPU
    found.instance_group.add(kind=kind, count=1)
    if model.max_rows > 1:
        found.dynamic_batching.max_queue_delay_microseconds = 0
    for name, value in _parameters(model, settings, source).items():
        found.parameters[name].string_value = value
    return found


def plan_of(record: GraphRecord, engines: Path) -> Path:
    """The engine of a graph, which is called as the graph is. Raises `UnsupportedExportError`."""
    plan = engines / Path(record.file).with_suffix(".plan")
    if not plan.is_file():
        raise UnsupportedExportError(
            f"`engines` has no {plan.relative_to(engines)}; build those of this export with"
            " `triptych export tensorrt`, on the machine where they shall run."
        )
    return plan


def _check_rows(component: str, graphs: Iterable[GraphRecord], runtime: TritonRuntime) -> None:
    """Of a graph with open rows there is an engine for each bucket, and a component model holds one."""
    if runtime == "tensorrt" and any(graph.dynamic_batch for graph in graphs):
        raise UnsupportedExportError(
            f"`runtime` 'tensorrt' serves graphs of fixed rows, and those of {component} leave them open;"
            " export the model without `--dynamic-batch`."
        )


def _chosen(manifest: Manifest, settings: TritonSettings) -> set[str]:
    there = [profile.name for profile in manifest.profiles]
    for name in settings.profiles:
        if name not in there:
            raise UnsupportedExportError(f"`profile` is {name!r}; the export has {', '.join(there)}.")
    return set(settings.profiles or there)


def _name(pipeline: str, component: str, graphs: Sequence[GraphRecord], *, alone: bool) -> str:
    return (
        f"{pipeline}_{component}"
        if alone
        else f"{pipeline}_{component}_{graphs[0].profile}-r{graphs[0].rows}"
    )


def _max_rows(graphs: Sequence[GraphRecord], manifest: Manifest, runtime: TritonRuntime) -> int:
    """A tensor without rows keeps requests apart, and so does a graph of a fixed number."""
    tensors = [tensor for graph in graphs for tensor in (*graph.inputs, *graph.outputs)]
    if any(not tensor.shape or tensor.name in ROWLESS for tensor in tensors):
        return 0
    if all(graph.dynamic_batch for graph in graphs):
        return max(rows for profile in manifest.profiles for rows in profile.row_buckets)
    return max(graph.rows for graph in graphs) if runtime == "python" else 0


def _tensors(
    kind: Any, model: ComponentModel, settings: TritonSettings, which: Literal["inputs", "outputs"]
) -> Iterable[Any]:
    """One for each name; an axis that is not the same in all graphs, or open, is -1."""
    for records in zip(*(getattr(graph, which) for graph in model.graphs), strict=True):
        shapes = zip(*(record.shape for record in records), strict=True)
        dims = [_axis(sizes) for sizes in shapes][1 if model.max_rows else 0 :]
        tensor = kind(name=records[0].name, data_type=_DTYPES[records[0].dtype], dims=dims or [1])
        if not dims:  # Triton has no shape smaller than [1]
            tensor.reshape.SetInParent()
        yield tensor


def _axis(sizes: Sequence[int | str]) -> int:
    first = sizes[0]
    return first if isinstance(first, int) and len(set(sizes)) == 1 else -1


def _parameters(model: ComponentModel, settings: TritonSettings, source: str) -> dict[str, str]:
    threads = {} if settings.threads is None else {"threads": str(settings.threads)}
    if settings.runtime == "python":
        files = json.dumps([graph.file for graph in model.graphs])
        site = {"site_packages": settings.site_packages} if settings.site_packages else {}
        return {"source": source, "graphs": files, **site, **threads}
    if settings.runtime == "onnxruntime":
        return {"intra_op_thread_count": threads.get("threads", "0")}
    return {}
