"""Source: the model that is exported. Found, checked, read one part at a time."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import diffusers

from export.errors import ExportError, UnsupportedExportError
from export.modules import DTYPES
from export.quiet import quiet
from router.model_folder import ModelFolder


def find_source(source: str) -> Path:
    """The local folder of a model; a hub id is fetched, its weights only as safetensors.

    Raises `UnsupportedExportError` where there is none.
    """
    if Path(source).is_dir():
        return Path(source)
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise UnsupportedExportError(
            f"There is no model folder {Path(source).name!r};"
            " name a folder with a model_index.json, or a hub id."
        )
    try:
        with quiet():
            return Path(diffusers.DiffusionPipeline.download(source, use_safetensors=True))
    except (OSError, ValueError) as exc:
        raise UnsupportedExportError(
            f"The hub gave no model {source!r} ({type(exc).__name__}); check the id and the connection,"
            " or name a local folder."
        ) from exc


def check_source(folder: Path) -> None:
    """Raises `LoadError` with one sentence unless every part is there, whole and in safetensors."""
    ModelFolder(folder, "source").check()


def read_part(folder: Path, part: str, dtype: str) -> Any:
    """A pipeline that holds this part and no other weights; on the CPU.

    Raises `ExportError` with what Diffusers says of a part that it cannot read.
    """
    others = {name: None for name in ModelFolder(folder, "source").components()}
    del others[part]
    others.pop("scheduler", None)  # of no weight, and pipelines look into it
    try:
        with quiet():
            return diffusers.DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
                folder, dtype=DTYPES[dtype], use_safetensors=True, local_files_only=True, **others
            )
    except Exception as exc:  # whatever the libraries' validators raise
        said = " ".join(f"{type(exc).__name__}: {exc}".split())[:200]
        raise ExportError(
            f"Diffusers {diffusers.__version__} cannot read {part!r} of source {folder.name!r} ({said})."
        ) from exc


def source_sha256(folder: Path) -> str:
    """One hash over all weights: of the lines `SHA256 PATH` of each file, in the order of their paths."""
    lines = hashlib.sha256()
    for file in sorted(ModelFolder(folder, "source").weight_files()):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        lines.update(f"{digest} {file.relative_to(folder).as_posix()}\n".encode())
    return lines.hexdigest()
