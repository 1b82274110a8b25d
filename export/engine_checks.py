"""Checks of an export before TensorRT reads it: all that can be known without a GPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto

from export.checks import check_folder
from export.engine_feeds import draw_feeds
from export.engines import PlannedEngine
from export.progress import Progress
from export.range_scan import Ranges, RangeScan
from router.manifest import Manifest

_WITHOUT_BFLOAT16: Final = ("Resize", "Einsum")
"""Operators that TensorRT takes in float32 and float16 alone.

Resize: NVIDIA's diffusion demonstration casts around it. Einsum: in no opset of ONNX.
"""


@dataclass(frozen=True)
class Checked:
    """What was found. Nothing may be built where there are findings."""

    findings: tuple[str, ...]
    notes: tuple[str, ...]
    largest_values: Mapping[str, float]
    """float16 alone: component -> largest magnitude between its nodes. It ends at 65,504."""


def check_export(
    folder: Path, manifest: Manifest, engines: Sequence[PlannedEngine], progress: Progress
) -> Checked:
    """Files and graphs as the manifest says and as TensorRT must have them; the range of float16.

    Reads the whole export. A graph in float16 is run on the CPU where no gate has told its range.
    """
    progress.begin("checks", 2)
    progress.step("files and graphs")
    runtimes = tuple(dict.fromkeys((*manifest.runtimes, "tensorrt")))
    findings = check_folder(folder, manifest.model_copy(update={"runtimes": runtimes}))
    if findings:
        return Checked(tuple(findings), (), {})
    findings += [said for file in _graphs(engines) for said in _traps(folder, file)]
    progress.step("the range of float16")
    largest, beyond = _ranges(folder, manifest, engines)
    return Checked((*findings, *beyond), tuple(_notes(manifest)), largest)


def _notes(manifest: Manifest) -> Iterator[str]:
    if manifest.parity is None:
        yield "The export was never compared with its source, so the engines are as good as its graphs."


def _graphs(engines: Iterable[PlannedEngine]) -> list[str]:
    return list(dict.fromkeys(engine.graph for engine in engines))


def _traps(folder: Path, file: str) -> Iterator[str]:
    """What is valid ONNX and of a known operator, and yet cannot be built."""
    graph = onnx.load(folder / file, load_external_data=False).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for operator in _WITHOUT_BFLOAT16:
        caught = [
            node
            for node in graph.node
            if node.op_type == operator
            and any(kinds.get(name) == TensorProto.BFLOAT16 for name in (*node.input, *node.output))
        ]
        if caught:
            yield (
                f"`{file}` has {len(caught)} {operator} in bfloat16, first {caught[0].name!r}, which TensorRT"
                " lacks; export the model again, or in float16."
            )


def _ranges(
    folder: Path, manifest: Manifest, engines: Sequence[PlannedEngine]
) -> tuple[dict[str, float], list[str]]:
    """Component -> largest magnitude: what the gate saw on real pictures, else what a scan sees now."""
    known = manifest.parity.largest_values if manifest.parity else {}
    largest, findings = {}, []
    for component, engines_of in itertools.groupby(engines, lambda each: each.component):
        engine = next(engines_of)
        if _is_half(engine):
            seen = Ranges(known[component], None) if component in known else _scan(folder, manifest, engine)
            largest[component] = seen.largest
            findings += [f"`{engine.graph}` {seen.finding}"] if seen.finding else []
    return largest, findings


def _is_half(engine: PlannedEngine) -> bool:
    return any(each.dtype == "float16" for each in (*engine.inputs, *engine.outputs))


def _scan(folder: Path, manifest: Manifest, engine: PlannedEngine) -> Ranges:
    feeds = draw_feeds(folder, manifest, engine)
    cast = {each.name: feeds[each.name].astype(each.dtype) for each in engine.inputs}
    return RangeScan(folder / engine.graph).run([cast])
