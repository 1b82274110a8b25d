"""Engines: which of them an export needs for TensorRT, of which shapes, in which files. Nothing is built."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from export.checks import DENOISERS
from export.errors import UnsupportedExportError
from export.profiles import MAX_ROWS
from router.manifest import GraphRecord, Manifest, TensorRecord

_DATA_SUFFIX: Final = ".onnx_data"

_ITEM_BYTES: Final[Mapping[str, int]] = {"float32": 4, "float16": 2, "bfloat16": 2, "int32": 4, "int64": 8}


@dataclass(frozen=True, kw_only=True)
class PlannedEngine:
    """One component at one shape, with one number of rows. Every axis is fixed."""

    component: str
    profiles: tuple[str, ...]
    """Several where a text encoder's shapes are the same for all of them."""
    rows: int
    graph: str
    """Inside the export's folder, with `/`."""
    file: str
    """Inside the engines' folder, with `/`: named as the graph."""
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    open_inputs: frozenset[str]
    """Inputs whose batch axis is open in the graph: the engine's profile fixes it, min = opt = max."""
    weights_bytes: int
    """On disk, in the export; an engine is about as large."""

    @property
    def io_bytes(self) -> int:
        """Of all inputs and outputs of one run."""
        return sum(size_bytes(tensor) for tensor in (*self.inputs, *self.outputs))


def plan_engines(
    manifest: Manifest, *, profiles: Sequence[str] = (), rows: Sequence[int] = ()
) -> tuple[PlannedEngine, ...]:
    """The engines for these profiles and numbers of rows; empty is all that the export has.

    Raises `UnsupportedExportError` for what it has not. No file is read.
    """
    chosen = tuple(dict.fromkeys(profiles)) or tuple(each.name for each in manifest.profiles)
    _check_profiles(chosen, manifest)
    _check_rows(rows, chosen, manifest)
    return tuple(
        engine for component in manifest.components for engine in _engines(manifest, component, chosen, rows)
    )


def shape_of(tensor: TensorRecord) -> tuple[int, ...]:
    """Of a tensor without open axes."""
    return tuple(int(axis) for axis in tensor.shape)


def size_bytes(tensor: TensorRecord) -> int:
    return math.prod(shape_of(tensor)) * _ITEM_BYTES[tensor.dtype]


def _check_profiles(chosen: Sequence[str], manifest: Manifest) -> None:
    known = [each.name for each in manifest.profiles]
    for name in chosen:
        if name not in known:
            raise UnsupportedExportError(
                f"`profile` is {name[:40]!r}; this export has {', '.join(known)}: use one of these,"
                " or export the model with that size."
            )


def _check_rows(rows: Sequence[int], chosen: Sequence[str], manifest: Manifest) -> None:
    denoiser = next((graphs for name, graphs in manifest.components.items() if name in DENOISERS), ())
    for profile, count in itertools.product(chosen, rows):
        if not 1 <= count <= MAX_ROWS:
            raise UnsupportedExportError(f"`rows` holds {count}; use numbers from 1 to {MAX_ROWS}.")
        known = [graph.rows for graph in denoiser if graph.profile == profile and not graph.dynamic_batch]
        if known and count not in known:
            raise UnsupportedExportError(
                f"`rows` holds {count}, and this export has {', '.join(map(str, sorted(known)))} at"
                f" {profile}; use these, or export the model with that number of rows."
            )


def _engines(
    manifest: Manifest, component: str, profiles: Sequence[str], rows: Sequence[int]
) -> Iterator[PlannedEngine]:
    """A graph that serves several profiles makes one engine."""
    found: dict[tuple[str, int], list[GraphRecord]] = {}
    for graph in manifest.components[component]:
        for count in _counts(component, graph, rows) if graph.profile in profiles else ():
            found.setdefault((graph.file, count), []).append(graph)
    for (file, count), records in found.items():
        yield _engine(component, records, count, _weights_bytes(manifest, component, file))


def _counts(component: str, graph: GraphRecord, rows: Sequence[int]) -> tuple[int, ...]:
    if component not in DENOISERS:
        return (1,)
    if graph.dynamic_batch:
        return tuple(dict.fromkeys(rows)) or (graph.rows,)
    return (graph.rows,) if not rows or graph.rows in rows else ()


def _engine(component: str, records: Sequence[GraphRecord], rows: int, weights_bytes: int) -> PlannedEngine:
    first = records[0]
    return PlannedEngine(
        component=component,
        profiles=tuple(record.profile for record in records),
        rows=rows,
        graph=first.file,
        file=_file(first, rows),
        inputs=tuple(_fixed(tensor, rows) for tensor in first.inputs),
        outputs=tuple(_fixed(tensor, rows) for tensor in first.outputs),
        open_inputs=frozenset(tensor.name for tensor in first.inputs if _is_open(tensor)),
        weights_bytes=weights_bytes,
    )


def _file(graph: GraphRecord, rows: int) -> str:
    path = PurePosixPath(graph.file)
    bucket = f"-r{rows}" if graph.dynamic_batch and rows not in (1, graph.rows) else ""
    return path.with_name(f"{path.stem}{bucket}.plan").as_posix()


def _fixed(tensor: TensorRecord, rows: int) -> TensorRecord:
    shape = tuple(rows if isinstance(axis, str) else axis for axis in tensor.shape)
    return tensor.model_copy(update={"shape": shape})


def _is_open(tensor: TensorRecord) -> bool:
    return any(isinstance(axis, str) for axis in tensor.shape)


def _weights_bytes(manifest: Manifest, component: str, file: str) -> int:
    """Of the graph's file, and of the data beside it: graphs of one component share all of it, or nearly."""
    beside = [name for name in manifest.files if PurePosixPath(name).match(f"{component}/*{_DATA_SUFFIX}")]
    return sum(manifest.files[name].size_bytes for name in (file, *beside))
