"""The folder of engines: each built, compared with its graph and written, then engines.json."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import torch

from export.engine_manifest import EngineManifest, EngineRecord, Machine
from export.engine_parity import EngineGate
from export.engine_plan import EnginePlan
from export.engines import PlannedEngine
from export.progress import Progress
from export.tensorrt_builder import EngineBuilder
from router.manifest import FILE_NAME, FileRecord


def write_engines(
    plan: EnginePlan, folder: Path, machine: Machine, device: int, progress: Progress
) -> EngineManifest:
    """Build the plan's engines into `folder`, which must be there and empty. Blocks for minutes to hours.

    The timing cache is kept after each engine, also where a later one fails. Raises `ExportError`,
    `GateError` for an engine that differs from its graph.
    """
    settings = plan.settings
    gate = EngineGate(
        plan.folder, plan.manifest, device, tf32=settings.tf32, host_code=settings.version_compatible
    )
    gate.check()
    records = []
    with torch.cuda.device(device):
        builder = EngineBuilder(settings, progress, _read(plan.timing_cache))
        for engine in plan.engines:
            built = builder.build(engine, plan.folder / engine.graph)
            _keep(plan.timing_cache, builder.timings)
            records.append(_record(plan, engine, built, gate.error(engine, built)))
            (folder / engine.file).parent.mkdir(exist_ok=True)
            (folder / engine.file).write_bytes(built)
    manifest = _manifest(plan, machine, gate.reference, tuple(records))
    manifest.write(folder)
    return manifest


def _record(plan: EnginePlan, engine: PlannedEngine, built: bytes, error: float) -> EngineRecord:
    return EngineRecord(
        file=engine.file,
        component=engine.component,
        profiles=engine.profiles,
        rows=engine.rows,
        graph=engine.graph,
        graph_sha256=plan.manifest.files[engine.graph].sha256,
        inputs=engine.inputs,
        outputs=engine.outputs,
        open_inputs=tuple(sorted(engine.open_inputs)),
        size_bytes=len(built),
        sha256=hashlib.sha256(built).hexdigest(),
        error=error,
    )


def _manifest(
    plan: EnginePlan, machine: Machine, reference: str, records: tuple[EngineRecord, ...]
) -> EngineManifest:
    export, settings = plan.manifest, plan.settings
    built = {profile for record in records for profile in record.profiles}
    return EngineManifest(
        family=export.family,
        pipeline=export.pipeline,
        profiles=tuple(each for each in export.profiles if each.name in built),
        timestep=export.timestep,
        machine=machine,
        hardware=settings.hardware,
        version_compatible=settings.version_compatible,
        tf32=settings.tf32,
        compared_with=reference,
        export=plan.folder.resolve().name,
        export_sha256=FileRecord.of(plan.folder / FILE_NAME).sha256,
        source_sha256=export.source_sha256,
        export_compared=export.parity is not None,
        options=settings.options(),
        engines=records,
    )


def _read(timings: Path) -> bytes:
    return timings.read_bytes() if timings.is_file() else b""


def _keep(timings: Path, content: bytes) -> None:
    """Whole or as it was: a build that is killed here costs no other its timings."""
    beside = timings.with_name(f".{timings.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(timings)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
