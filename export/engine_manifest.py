"""EngineManifest: engines.json of a folder of engines. What each is, of which graph, for which machine."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from export.engine_settings import Hardware
from export.engines import PlannedEngine
from router.errors import LoadError
from router.manifest import FileRecord, Manifest, ProfileRecord, TensorRecord
from router.versioned import VersionedFile

FILE_NAME: Final = "engines.json"
SCHEMA_VERSION: Final = 1

_FILE: Final = VersionedFile(
    FILE_NAME,
    SCHEMA_VERSION,
    absent="name a folder that `python -m export.to_tensorrt` wrote",
    again="build the engines again",
)

_Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Inside: TypeAlias = Annotated[str, Field(pattern=r"^\w+/[\w-]+\.plan$")]
"""One folder deep, so that no name leads outside."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Record):
    """What an engine is built on and for: TensorRT promises nothing for another."""

    gpu: str
    """As the driver names it, `NVIDIA H100 80GB HBM3`."""
    compute_capability: tuple[int, int]
    tensorrt: str
    cuda: str
    platform: str
    """Operating system and processor, `linux-x86_64`."""

    def __str__(self) -> str:
        capability = ".".join(map(str, self.compute_capability))
        return (
            f"TensorRT {self.tensorrt} with CUDA {self.cuda} on {self.gpu}"
            f" (compute capability {capability}, {self.platform})"
        )


class EngineRecord(_Record):
    """One engine, and the graph that it was built from."""

    file: _Inside
    """Inside the engines' folder, with `/`."""
    component: str
    profiles: Annotated[tuple[str, ...], Field(min_length=1)]
    rows: Annotated[int, Field(ge=1)]
    graph: str
    """Inside the export's folder, with `/`."""
    graph_sha256: _Sha256
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    open_inputs: tuple[str, ...] = ()
    """Inputs whose batch axis is open in the graph, and of these rows in the engine's only profile."""
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: _Sha256
    error: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Largest difference from ONNX Runtime's outputs, by the measure of `Tolerance.component_error`."""

    def planned(self) -> PlannedEngine:
        return PlannedEngine(
            component=self.component,
            profiles=self.profiles,
            rows=self.rows,
            graph=self.graph,
            file=self.file,
            inputs=self.inputs,
            outputs=self.outputs,
            open_inputs=frozenset(self.open_inputs),
            weights_bytes=self.size_bytes,
        )


class EngineManifest(_Record):
    """Everything that must be known before an engine is loaded, which no engine tells of itself."""

    schema_version: Literal[1] = SCHEMA_VERSION
    family: str
    pipeline: str
    profiles: tuple[ProfileRecord, ...]
    timestep: Literal["per-row", "scalar"]
    machine: Machine
    hardware: Hardware
    version_compatible: bool
    tf32: bool
    compared_with: str
    """What ran the graphs for `EngineRecord.error`: `onnxruntime 1.31.1, CUDAExecutionProvider`."""
    export: str
    """Name of the export's folder."""
    export_sha256: _Sha256
    """Of the export's manifest.json."""
    source_sha256: _Sha256
    """Of the weights that the export was made from."""
    export_compared: bool
    """Whether a parity gate had passed the export."""
    options: tuple[str, ...]
    """The command line's options that built these, without the output."""
    engines: Annotated[tuple[EngineRecord, ...], Field(min_length=1)]

    @classmethod
    def read(cls, folder: Path) -> EngineManifest:
        """Read and check what it says, not the files. Raises `LoadError`."""
        return _FILE.read(cls, folder)

    def write(self, folder: Path) -> None:
        _FILE.write(self, folder)

    def described(self) -> dict[str, Any]:
        """What was built, as an object for a program."""
        told = self.model_dump(mode="json", include={"family", "machine", "compared_with", "options"})
        names = {"file", "component", "profiles", "rows", "size_bytes", "error"}
        engines = [record.model_dump(mode="json", include=names) for record in self.engines]
        return told | {"for": str(self.machine), "engines": engines}

    def check(self, folder: Path, machine: Machine) -> None:
        """Raise `LoadError` unless these engines run on this machine and lie there as they were built.

        To be called before any of them is deserialised: an engine is code. Reads all files.
        """
        self.check_machine(folder, machine)
        self.check_files(folder)

    def check_files(self, folder: Path) -> None:
        """Raise `LoadError` unless the engines lie there as they were built. Reads all files."""
        for record in self.engines:
            file = folder / record.file
            if not file.is_file():
                raise LoadError(f"`{record.file}` of {folder.name!r} is missing; copy the whole folder.")
            if FileRecord.of(file) != FileRecord(size_bytes=record.size_bytes, sha256=record.sha256):
                raise LoadError(
                    f"`{record.file}` of {folder.name!r} has changed since it was built; copy the folder"
                    f" again, or build it again: {self.rebuild_command(folder)}"
                )

    def check_machine(self, folder: Path, machine: Machine) -> None:
        """Raise `LoadError` unless these engines run on this machine. Reads no file."""
        if self._runs_on(machine):
            return
        raise LoadError(
            f"The engines in {folder.name!r} are for {self.machine}, and here is {machine};"
            f" build them again here: {self.rebuild_command(folder)}"
        )

    def check_graphs(self, folder: Path, export: Manifest) -> None:
        """Raise `LoadError` unless the engines were built from the graphs of this export. Reads no file."""
        for record in self.engines:
            graph = export.files.get(record.graph)
            if graph is None or graph.sha256 != record.graph_sha256:
                raise LoadError(
                    f"`{record.file}` of {folder.name!r} was built from another graph than this export's"
                    f" `{record.graph}`; name that export, or build it again: {self.rebuild_command(folder)}"
                )

    def rebuild_command(self, folder: Path) -> str:
        return shlex.join(
            [
                *("python", "-m", "export.to_tensorrt", self.export),
                *(*self.options, "--output", folder.name, "--force"),
            ]
        )

    def _runs_on(self, machine: Machine) -> bool:
        built = self.machine
        return (
            built.platform == machine.platform
            and _numbers(built.cuda)[:1] == _numbers(machine.cuda)[:1]
            and self._is_version(machine.tensorrt)
            and self._is_gpu(machine)
        )

    def _is_version(self, version: str) -> bool:
        """TensorRT's promise: the same version, or a later one of the same major version where asked for."""
        built, here = _numbers(self.machine.tensorrt), _numbers(version)
        if self.version_compatible:
            return built[:1] == here[:1] and built <= here
        return self.machine.tensorrt == version

    def _is_gpu(self, machine: Machine) -> bool:
        if self.hardware == "ampere-plus":
            return machine.compute_capability >= (8, 0)
        same = machine.compute_capability == self.machine.compute_capability
        return same and (self.hardware == "same-compute-capability" or machine.gpu == self.machine.gpu)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
