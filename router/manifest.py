"""Manifest: manifest.json of an export. What it is, for which shapes, made by what, with which hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from router.types import ShapeProfile
from router.versioned import VersionedFile

FILE_NAME = "manifest.json"
SCHEMA_VERSION: Final = 1

_FILE: Final = VersionedFile(
    FILE_NAME,
    SCHEMA_VERSION,
    absent="name the folder of an export, or export again",
    again="export the model again",
)

_Count: TypeAlias = Annotated[int, Field(ge=1)]
_Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Error: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]

Runtime: TypeAlias = Literal["onnxruntime", "openvino", "tensorrt"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProfileRecord(_Record):
    """A shape that graphs were made for."""

    name: str
    height: _Count
    width: _Count
    dtype: str
    row_buckets: Annotated[tuple[_Count, ...], Field(min_length=1)]
    text_lengths: tuple[_Count, ...] = (77,)

    def shape_profile(self) -> ShapeProfile:
        return ShapeProfile(**self.model_dump())


class TensorRecord(_Record):
    """One input or output of a graph; a name in `shape` is an axis that may vary."""

    name: str
    dtype: str
    shape: tuple[_Count | str, ...]


class GraphRecord(_Record):
    """One component at one profile and one number of rows."""

    file: str
    """Path inside the export's folder, with `/`."""
    profile: str
    rows: _Count
    """A bucket of the profile for the denoiser, else 1. Of an axis that varies: those of the example."""
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]

    @property
    def dynamic_batch(self) -> bool:
        """Whether one graph serves any number of rows."""
        return any(isinstance(axis, str) for tensor in self.inputs for axis in tensor.shape[:1])


class FileRecord(_Record):
    """A file as it was when the export was made."""

    size_bytes: Annotated[int, Field(ge=0)]
    sha256: _Sha256

    @classmethod
    def of(cls, file: Path) -> FileRecord:
        """Reads the whole file."""
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return cls(size_bytes=file.stat().st_size, sha256=digest)


class PictureParity(_Record):
    """One whole picture, made by the source and by the export from the same request."""

    name: str
    """Task, steps and what else told it from the others."""
    profile: str
    psnr_db: _Error | None
    """Peak signal-to-noise ratio; `None` where the pictures are equal."""
    largest_difference: Annotated[int, Field(ge=0, le=255)]
    """Of a colour of a pixel, in levels of 255."""


class ParityRecord(_Record):
    """How far the export was from its source, and how far it was allowed to be."""

    components: dict[str, _Error]
    """Component -> largest difference of its outputs from those in float32, over all its graphs.

    Where an output's largest value is beyond 1, the difference is a share of that value.
    """
    pictures: Annotated[tuple[PictureParity, ...], Field(min_length=1)]
    max_component_error: _Error
    min_psnr_db: _Error
    runtime: str
    """What ran the export, with its version: `onnxruntime 1.31.1`."""
    largest_values: dict[str, _Error] = Field(default_factory=dict)
    """float16 alone: component -> largest value between its nodes. Beyond 65,504 it would overflow."""


class Manifest(_Record):
    """Everything that must be known about an export before it is loaded."""

    schema_version: Literal[1] = SCHEMA_VERSION
    family: str
    pipeline: str
    """Diffusers class, `StableDiffusionXLPipeline`."""
    profiles: Annotated[tuple[ProfileRecord, ...], Field(min_length=1)]
    components: dict[str, Annotated[tuple[GraphRecord, ...], Field(min_length=1)]]
    """Component -> its graphs, one for each profile and number of rows."""
    timestep: Literal["per-row", "scalar"]
    """Whether the rows of one run may stand at different timesteps."""
    opset: _Count
    tools: dict[str, str]
    """Library -> the version that took part."""
    source_sha256: _Sha256
    """Of the weights that the export was made from."""
    files: dict[str, FileRecord]
    """Every file of the export but this one, by its path inside the folder."""
    runtimes: tuple[Runtime, ...] = ()
    """Those that know every operator of the graphs."""
    parity: ParityRecord | None = None
    """`None`: nothing has compared the export with its source yet."""

    @model_validator(mode="after")
    def _check_references(self) -> Manifest:
        rows = {profile.name: {1, *profile.row_buckets} for profile in self.profiles}
        for graph in (graph for graphs in self.components.values() for graph in graphs):
            fits = graph.profile in rows and (graph.dynamic_batch or graph.rows in rows[graph.profile])
            if not fits:
                raise ValueError(f"no profile {graph.profile!r} of {graph.rows} rows for {graph.file}")
            if graph.file not in self.files:
                raise ValueError(f"no hash of {graph.file} among the files")
        return self

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and check what it says, not the files. Raises `LoadError`."""
        return _FILE.read(cls, folder)

    def write(self, folder: Path) -> None:
        _FILE.write(self, folder)

    def check_sizes(self, folder: Path) -> list[str]:
        """One sentence for each file that is missing or has another size. Reads none of them."""
        sentences = (_wrong_size(folder, name, record) for name, record in self.files.items())
        return [sentence for sentence in sentences if sentence]

    def check_files(self, folder: Path) -> list[str]:
        """One sentence for each file that is not as it was. Reads them all: slow, and blocks."""
        sentences = (_wrong(folder, name, record) for name, record in self.files.items())
        return [sentence for sentence in sentences if sentence]


def _wrong(folder: Path, name: str, record: FileRecord) -> str | None:
    sentence = _wrong_size(folder, name, record)
    if sentence is None and FileRecord.of(folder / name) != record:
        return f"`{name}` has changed since the export; copy the export again."
    return sentence


def _wrong_size(folder: Path, name: str, record: FileRecord) -> str | None:
    path = PurePosixPath(name)
    file = folder / path
    if path.is_absolute() or not file.resolve().is_relative_to(folder.resolve()):
        return f"`{name}` lies outside the export's folder; export the model again."
    if not file.is_file():
        return f"`{name}` is missing; copy the whole export."
    if file.stat().st_size != record.size_bytes:
        size = file.stat().st_size
        return f"`{name}` has {size} bytes instead of {record.size_bytes}; copy the export again."
    return None
