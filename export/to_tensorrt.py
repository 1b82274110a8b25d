"""From an export to TensorRT's engines: `python -m export.to_tensorrt EXPORT_DIR`.

One engine for each component, profile and number of rows, every axis fixed. What needs a GPU was never run
on one; `dry_run` does everything else.
"""

from __future__ import annotations

import sys
from pathlib import Path

from export.engine_manifest import FILE_NAME, EngineManifest
from export.engine_plan import EnginePlan, make_plan
from export.engine_settings import EngineSettings
from export.errors import refuse
from export.machine import this_machine
from export.progress import Progress, Silent
from export.unfinished import check_output, check_room, unfinished
from router.cli import main
from router.manifest import Manifest


def dry_run(
    folder: Path,
    output: Path | None = None,
    settings: EngineSettings | None = None,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> EnginePlan:
    """Check the export `folder` and plan its engines: all that needs neither TensorRT nor a GPU.

    Raises as `to_tensorrt` does. Writes nothing. Blocks for as long as the export takes to read, and in
    float16 for a run of each component where no gate has told its range.
    """
    plan = make_plan(folder, output, settings or EngineSettings(), progress or Silent())
    check_output(plan.output, replace=force, marker=FILE_NAME)
    check_room(plan.output, plan.weights_bytes)
    return plan


def to_tensorrt(
    folder: Path,
    output: Path | None = None,
    settings: EngineSettings | None = None,
    *,
    device: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> EngineManifest:
    """Build the engines of the export `folder` into the folder `output`, each compared with its graph.

    `output` is beside the export by default; `force` replaces engines that are there. Blocks for minutes to
    hours. Raises `BackendUnavailableError` where TensorRT or a GPU is missing, `LoadError` for what is no
    export, `UnsupportedExportError` for what it has not, `GateError` for graphs or engines that are not as
    they must be, `ExportError` for what TensorRT or the disk says. Then nothing stands under `output`.
    """
    machine = this_machine(device)
    progress = progress or Silent()
    plan = dry_run(folder, output, settings, force=force, progress=progress)
    for note in plan.checked.notes:
        progress.note(note)
    from export.engine_folder import write_engines

    with unfinished(plan.output, replace=force, marker=FILE_NAME) as unnamed:
        return write_engines(plan, unnamed, machine, device, progress)


def verify_engines(
    folder: Path, engines: Path, *, device: int = 0, progress: Progress | None = None
) -> dict[str, float]:
    """Compare finished engines with the graphs of the export `folder` again: engine -> largest difference.

    Raises `LoadError` for engines that this machine must not load, `GateError` with all that is wrong.
    """
    machine = this_machine(device)
    progress = progress or Silent()
    built, manifest = EngineManifest.read(engines), Manifest.read(folder)
    built.check(engines, machine)
    built.check_graphs(engines, manifest)
    refuse(manifest.check_files(folder))
    from export.engine_parity import EngineGate

    gate = EngineGate(folder, manifest, device, tf32=built.tf32, host_code=built.version_compatible)
    gate.check()
    progress.begin("engines", len(built.engines))
    errors = {}
    for record in built.engines:
        progress.step(record.file)
        errors[record.file] = gate.error(record.planned(), (engines / record.file).read_bytes())
    return errors


if __name__ == "__main__":
    sys.argv[1:1] = ["export", "tensorrt"]
    main()
