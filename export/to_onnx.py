"""From a model folder to a verified export: `python -m export.to_onnx SOURCE --output DIR`.

Refuse what cannot be, write beside the output, compare with the source, rename. What does not equal its
source never stands under the output's name.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from export import gate
from export.errors import UnsupportedExportError
from export.families import family_of
from export.folder import write_folder
from export.modules import DTYPES
from export.profiles import profiles_of
from export.progress import Progress, Silent
from export.settings import ExportSettings
from export.source import check_source, find_source
from export.unfinished import check_output, check_room, unfinished
from router.cli import main
from router.manifest import FILE_NAME, FileRecord, Manifest, Runtime
from router.model_folder import ModelFolder


def to_onnx(
    source: str,
    output: Path,
    *,
    sizes: Sequence[str] = (),
    dtype: str = "float32",
    rows: Sequence[int] = (),
    text_length: int | None = None,
    opset: int = 20,
    for_optimum: bool = False,
    dynamic_batch: bool = False,
    runtimes: Sequence[Runtime] = ("onnxruntime",),
    force: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Export the model `source` (a folder or a hub id) into the folder `output`, compared with it.

    `sizes`, `rows` and `text_length` are those of `profiles_of`; `for_optimum` makes the UNet's timestep
    a scalar; `force` replaces an export that is there. Blocks for seconds to hours.
    Raises `UnsupportedExportError` before anything is written, `GateError` where the export is not as its
    source, `ExportError`, `LoadError` for a damaged source.
    """
    check_output(output, replace=force)
    folder = find_source(source)
    check_source(folder)
    family = family_of(folder)
    settings = ExportSettings(
        profiles=profiles_of(family, sizes, dtype=dtype, rows=rows, text_length=text_length),
        opset=opset,
        timestep="scalar" if for_optimum and family.has_unet else "per-row",
        dynamic_batch=dynamic_batch,
        runtimes=tuple(runtimes),
    )
    _check_machine(folder, output, settings)
    return export_checked(folder, output, settings, replace=force, progress=progress)


def export_checked(
    source: Path,
    output: Path,
    settings: ExportSettings,
    *,
    replace: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """The same for a checked folder and made settings."""
    progress = progress or Silent()
    with unfinished(output, replace=replace) as folder:
        unverified = write_folder(source, folder, settings, progress)
        parity = gate.check(folder, source, unverified, progress=progress)
        added = {name: FileRecord.of(folder / name) for name in _files(folder) - unverified.files.keys()}
        manifest = unverified.model_copy(update={"parity": parity, "files": unverified.files | added})
        manifest.write(folder)
    return manifest


def _check_machine(source: Path, output: Path, settings: ExportSettings) -> None:
    """What would else be found out only at the end."""
    if settings.dtype == "bfloat16" and importlib.util.find_spec("openvino") is None:
        raise UnsupportedExportError(
            "Exports in bfloat16 are compared by OpenVINO, which is missing;"
            " pip install 'triptych[openvino]'."
        )
    check_room(output, ModelFolder(source, "source").parameters() * DTYPES[settings.dtype].itemsize)


def _files(folder: Path) -> set[str]:
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    return files - {FILE_NAME}


if __name__ == "__main__":
    sys.argv[1:1] = ["export", "onnx"]
    main()
