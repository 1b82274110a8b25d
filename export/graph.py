"""A graph: one component traced by PyTorch's exporter at one shape."""

from __future__ import annotations

from typing import Any, Final

import onnx_ir
import torch
from torch import nn

from export.components import Component
from export.errors import ExportError
from export.plan import PlannedGraph
from export.quiet import quiet
from export.rewrites import rewrite
from export.settings import ExportSettings
from router.manifest import GraphRecord, TensorRecord

BATCH_AXIS: Final = "batch_size"
_MAX_BATCH: Final = 63
"""Diffusers branches at 64 rows, which no one graph can follow."""

_SEED = 0


def trace(module: nn.Module, planned: PlannedGraph, settings: ExportSettings) -> onnx_ir.Model:
    """The component's graph at this shape; its initialisers still are the module's own tensors.

    Raises `ExportError` where PyTorch cannot export it.
    """
    component = planned.component
    example = component.example(planned.profile, planned.rows, torch.Generator().manual_seed(_SEED))
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (),
                kwargs=example,
                input_names=component.input_names,
                output_names=component.output_names,
                opset_version=settings.opset,
                dynamo=True,
                dynamic_shapes=_open_axes(component) if settings.dynamic_batch else None,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as exc:
        raise ExportError(
            f"PyTorch {torch.__version__} cannot export {planned.file}: {_first_line(exc)}"
        ) from exc
    assert program is not None
    rewrite(program.model)
    return program.model


def record(graph: onnx_ir.Model, planned: PlannedGraph) -> GraphRecord:
    return GraphRecord(
        file=planned.file,
        profile=planned.profile.name,
        rows=planned.rows,
        inputs=tuple(_tensor(value) for value in graph.graph.inputs),
        outputs=tuple(_tensor(value) for value in graph.graph.outputs),
    )


def _open_axes(component: Component) -> dict[str, Any]:
    batch = torch.export.Dim(BATCH_AXIS, min=1, max=_MAX_BATCH)
    return {each.name: {0: batch} if each.batched else None for each in component.inputs}


def _tensor(value: onnx_ir.Value) -> TensorRecord:
    assert value.name is not None
    assert value.dtype is not None
    assert value.shape is not None
    shape = tuple(axis if isinstance(axis, int) else str(axis) for axis in value.shape)
    return TensorRecord(name=value.name, dtype=str(value.dtype.numpy()), shape=shape)


def _first_line(exc: BaseException) -> str:
    """What the innermost cause says first; the exporter wraps it in pages of advice."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0][:200]
