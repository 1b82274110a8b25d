"""EnginePlan: everything about engines that is known before the first is built. All of it without a GPU."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.engine_checks import Checked, check_export
from export.engine_settings import EngineSettings
from export.engines import PlannedEngine, plan_engines
from export.errors import refuse
from export.progress import Progress
from export.trtexec import trtexec_command
from router.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class EnginePlan:
    """What would be built, from what, with which settings."""

    folder: Path
    output: Path
    manifest: Manifest
    settings: EngineSettings
    engines: tuple[PlannedEngine, ...]
    checked: Checked

    @property
    def timing_cache(self) -> Path:
        return self.settings.timing_cache or self.output.with_name(f"{self.output.name}.timings")

    @property
    def weights_bytes(self) -> int:
        """Of all engines: each carries its weights for itself."""
        return sum(engine.weights_bytes for engine in self.engines)

    def commands(self) -> list[str]:
        """One line for a shell for each engine. trtexec makes no folders and no engines.json."""
        return [
            shlex.join(trtexec_command(engine, self.folder, self.output, self.settings, self.timing_cache))
            for engine in self.engines
        ]

    def described(self) -> dict[str, Any]:
        """The plan as an object for a program."""
        return {
            "export": str(self.folder),
            "output": str(self.output),
            "family": self.manifest.family,
            "timing_cache": str(self.timing_cache),
            "weights_bytes": self.weights_bytes,
            "largest_values": dict(self.checked.largest_values),
            "notes": list(self.checked.notes),
            "engines": [
                _described(engine) | {"trtexec": command}
                for engine, command in zip(self.engines, self.commands(), strict=True)
            ],
        }


def make_plan(folder: Path, output: Path | None, settings: EngineSettings, progress: Progress) -> EnginePlan:
    """Check the export, and plan its engines.

    Raises `LoadError` for what is no export, `UnsupportedExportError` for what it has not, `GateError` with
    all that is wrong with its files and graphs.
    """
    manifest = Manifest.read(folder)
    engines = plan_engines(manifest, profiles=settings.profiles, rows=settings.rows)
    checked = check_export(folder, manifest, engines, progress)
    refuse(checked.findings)
    return EnginePlan(
        folder=folder,
        output=output or default_output(folder),
        manifest=manifest,
        settings=settings,
        engines=engines,
        checked=checked,
    )


def default_output(folder: Path) -> Path:
    """Beside the export: `exports/sdxl-tensorrt` for `exports/sdxl`."""
    folder = folder if folder.name else folder.resolve()
    return folder.with_name(f"{folder.name}-tensorrt")


def _described(engine: PlannedEngine) -> dict[str, Any]:
    tensors = {"inputs": engine.inputs, "outputs": engine.outputs}
    return {
        "file": engine.file,
        "component": engine.component,
        "profiles": list(engine.profiles),
        "rows": engine.rows,
        "graph": engine.graph,
        "weights_bytes": engine.weights_bytes,
        "io_bytes": engine.io_bytes,
    } | {kind: [each.model_dump(mode="json") for each in found] for kind, found in tensors.items()}
