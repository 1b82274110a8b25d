"""Parity of components: each graph beside the source's module in float32, on random and on real inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.capture import Call, fill
from export.components import Component
from export.range_scan import RangeScan
from export.sessions import Feeds, Session, open_session
from export.tolerances import TOLERANCES, difference
from router.manifest import GraphRecord
from router.types import ShapeProfile

Array: TypeAlias = NDArray[Any]

_SEED: Final = 1
_OPEN_ROWS: Final = (1, 2, 3)
"""An open batch axis holds for all numbers; these tell apart one that is fixed and one that is broadcast."""


@dataclass(frozen=True)
class GraphParity:
    """How far one graph is from its source."""

    error: float
    """Largest, by the measure of `Tolerance.component_error`; infinity where it made no finite numbers."""
    largest_value: float
    """float16 alone: the largest value between its nodes."""
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """One component as PyTorch runs it: `Component.wrap` in float32, and in the dtype of the export."""

    component: Component
    wide: nn.Module
    own: nn.Module | None
    """`None` where the export is in float32."""


def compare(
    folder: Path, graph: GraphRecord, source: Source, profile: ShapeProfile, calls: Sequence[Call]
) -> GraphParity:
    """Run the graph and the source's module on the same inputs, random ones and those of `calls`.

    Raises `ExportError` where the runtime refuses the graph.
    """
    component, file = source.component, folder / graph.file
    dtype = component.dtype(profile.dtype)
    session = open_session(file, dtype)
    runs = [
        _run(session, source, dtype, kind, inputs)
        for kind, inputs in _inputs(graph, component, profile, calls)
    ]
    del session
    error = max(max(run.errors) for run in runs)
    largest, said = 0.0, None
    if dtype == "float16" or not np.isfinite(error):
        ranges = RangeScan(file).run(run.feeds for run in runs)
        largest, said = ranges.largest, ranges.finding
    if said is None:
        said = _said(component.output_names, runs, dtype)
    return GraphParity(error, largest, (f"`{graph.file}` {said}",) if said else ())


@dataclass(frozen=True)
class _Run:
    kind: str
    feeds: Feeds
    made: Sequence[Array]
    reference: Sequence[Array]
    errors: Sequence[float]
    allowed: Sequence[float]


def _run(session: Session, source: Source, dtype: str, kind: str, inputs: dict[str, Tensor]) -> _Run:
    feeds = {name: _array(tensor) for name, tensor in inputs.items()}
    made, reference = session.run(feeds), _outputs(source.wide, _widened(inputs))
    own = _outputs(source.own, inputs) if source.own else reference
    errors = [difference(*pair) for pair in zip(made, reference, strict=True)]
    rounding = [difference(*pair) for pair in zip(own, reference, strict=True)]
    return _Run(kind, feeds, made, reference, errors, [TOLERANCES[dtype].allowed(each) for each in rounding])


def _inputs(
    graph: GraphRecord, component: Component, profile: ShapeProfile, calls: Sequence[Call]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """In the graph's own dtypes, so that rounding them is no difference between the two."""
    generator = torch.Generator().manual_seed(_SEED)
    dtypes = {tensor.name: getattr(torch, tensor.dtype) for tensor in graph.inputs}
    for rows in _OPEN_ROWS if graph.dynamic_batch else (graph.rows,):
        for kind, inputs in (
            ("random", component.example(profile, rows, generator)),
            ("real", fill(component, calls, rows)),
        ):
            yield kind, {name: inputs[name].to(dtypes[name]) for name in dtypes}


def _widened(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}


def _outputs(module: nn.Module, inputs: dict[str, Tensor]) -> list[Array]:
    with torch.no_grad():
        return [_array(output) for output in module(**inputs)]


def _array(tensor: Tensor) -> Array:
    """NumPy has no bfloat16; sessions take float32 for it."""
    array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()
    return array


def _said(names: Sequence[str], runs: Sequence[_Run], dtype: str) -> str | None:
    """The rest of a sentence about the worst output, if it is beyond the tolerance."""
    beyond = [
        (error / allowed, index, run)
        for run in runs
        for index, (error, allowed) in enumerate(zip(run.errors, run.allowed, strict=True))
        if not error <= allowed
    ]
    if not beyond:
        return None
    _, index, run = max(beyond, key=lambda each: each[0])
    outputs = {each for _, each, _ in beyond}
    for other in outputs - {index}:
        if difference(run.made[index], run.reference[other]) <= run.allowed[other]:
            return f"gives {names[other]!r} where {names[index]!r} belongs; swap its outputs back."
    more = f" (and {len(outputs) - 1} more outputs)" if len(outputs) > 1 else ""
    return (
        f"is {run.errors[index]:.3g} away from the source in {names[index]!r}{more} on {run.kind} inputs,"
        f" and may be {run.allowed[index]:.2g} in {dtype}; export the model again, or with another `opset`."
    )
