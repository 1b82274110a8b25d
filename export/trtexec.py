"""trtexec: the command lines of NVIDIA's own tool that build the same engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from export.engine_settings import EngineSettings, Hardware
from export.engines import PlannedEngine, shape_of
from router.manifest import TensorRecord

_HARDWARE: Final[Mapping[Hardware, str]] = {
    "same-compute-capability": "sameComputeCapability",
    "ampere-plus": "ampere+",
}


def trtexec_command(
    engine: PlannedEngine,
    export: Path,
    output: Path,
    settings: EngineSettings,
    timing_cache: Path | None = None,
) -> tuple[str, ...]:
    """The words of one command, for TensorRT 10 and 11; 11 needs no `--stronglyTyped` and takes it."""
    return (
        "trtexec",
        f"--onnx={export / engine.graph}",
        f"--saveEngine={output / engine.file}",
        "--stronglyTyped",
        f"--builderOptimizationLevel={settings.optimization_level}",
        *_settings(settings),
        *([f"--timingCacheFile={timing_cache}"] if timing_cache else []),
        *_shapes(engine),
        "--skipInference",
    )


def shapes_text(tensors: tuple[TensorRecord, ...]) -> str:
    """`sample:2x4x64x64,timestep:2`, as trtexec and ONNX Runtime's provider read shapes."""
    return ",".join(f"{each.name}:{'x'.join(map(str, shape_of(each)))}" for each in tensors if each.shape)


def _settings(settings: EngineSettings) -> Iterator[str]:
    if settings.workspace_mib:
        yield f"--memPoolSize=workspace:{settings.workspace_mib}"
    if not settings.tf32:
        yield "--noTF32"
    if settings.version_compatible:
        yield "--versionCompatible"
    if settings.hardware in _HARDWARE:
        yield f"--hardwareCompatibilityLevel={_HARDWARE[settings.hardware]}"


def _shapes(engine: PlannedEngine) -> Iterator[str]:
    """Only for open axes: trtexec refuses shapes for a graph whose own are fixed."""
    opened = tuple(each for each in engine.inputs if each.name in engine.open_inputs)
    for which in ("min", "opt", "max") if opened else ():
        yield f"--{which}Shapes={shapes_text(opened)}"
