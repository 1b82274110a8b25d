"""The gate again on a finished export: `python -m export.verify DIR [--against SOURCE]`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from export.checks import check_folder
from export.errors import GateError, refuse
from export.gate import measure
from export.progress import Progress
from export.source import check_source, find_source, source_sha256
from router.cli import main
from router.manifest import Manifest, ParityRecord

WITHOUT_SOURCE: Final = (
    "components beside the source, on random and on real inputs",
    "the range of float16",
    "whole pictures beside the source's",
)
"""What only a source makes possible."""


@dataclass(frozen=True)
class Verified:
    """An export that passed, and what was looked at."""

    manifest: Manifest
    parity: ParityRecord | None
    """As measured now; `None` without a source."""
    not_run: tuple[str, ...]


def verify(
    folder: Path,
    source: str | None = None,
    *,
    sheet: Path | None = None,
    progress: Progress | None = None,
) -> Verified:
    """Check a finished export: its hashes and graphs, and beside `source` (a folder or hub id) all else.

    Nothing is written but the parity sheet, if `sheet` names a file. Raises `GateError` with everything
    that is wrong, `LoadError` for a folder that is no export. Blocks.
    """
    manifest = Manifest.read(folder)
    if source is None:
        refuse([*check_folder(folder, manifest), *_never_compared(manifest)])
        return Verified(manifest, None, WITHOUT_SOURCE)
    origin = find_source(source)
    check_source(origin)
    _check_origin(origin, manifest)
    measured = measure(folder, origin, manifest, progress=progress)
    if sheet is not None:
        measured.write_sheet(sheet, manifest)
    refuse(measured.findings)
    return Verified(manifest, measured.record, ())


def _never_compared(manifest: Manifest) -> list[str]:
    if manifest.parity is not None:
        return []
    return ["The export was never compared with its source; name that with `against`."]


def _check_origin(source: Path, manifest: Manifest) -> None:
    found = source_sha256(source)
    if found != manifest.source_sha256:
        raise GateError(
            f"The weights of {source.name!r} (SHA-256 {found[:12]}...) are not those that the export was made"
            f" from ({manifest.source_sha256[:12]}...); name that source, or export the model again."
        )


if __name__ == "__main__":
    sys.argv[1:1] = ["export", "verify"]
    main()
