"""The folder that is being written: it gets its name when it is whole, or it goes.

Beside `exports/sdxl` stand, while it is made, `.sdxl.unfinished` and `.sdxl.lock`. A run that was killed
leaves the first behind; the next run, which then gets the lock, removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from export.errors import ExportError, UnsupportedExportError
from router.manifest import FILE_NAME


def check_output(output: Path, *, replace: bool, marker: str = FILE_NAME) -> None:
    """Raises `UnsupportedExportError` where nothing may be put, before any work is done for it.

    `marker` is the file without which a folder is none of ours, and not replaced.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise UnsupportedExportError(f"`output` {output.name!r} is a file; name a folder.")
    empty = not any(output.iterdir())
    if not replace and not empty:
        raise UnsupportedExportError(
            f"`output` {output.name!r} is there already; name another folder, or replace it with `force`."
        )
    if not empty and not (output / marker).is_file():
        raise UnsupportedExportError(
            f"`output` {output.name!r} is no export, so `force` does not replace it: it has no"
            f" {marker}; name another folder."
        )


def check_room(output: Path, needed_bytes: int) -> None:
    """Raises `ExportError` where the disk has fewer bytes left, which would else be found out at the end."""
    parent = next(folder for folder in output.resolve().parents if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if needed_bytes > free:
        raise ExportError(
            f"The export needs {needed_bytes:,} bytes, and the disk of `output` {output.name!r} has {free:,}"
            " left; make room, or name a folder on another."
        )


@contextlib.contextmanager
def unfinished(output: Path, *, replace: bool = False, marker: str = FILE_NAME) -> Iterator[Path]:
    """An empty folder on the same disk, which becomes `output` where the block ends well.

    Raises `UnsupportedExportError` as `check_output` does and where another run writes it,
    `ExportError` for what the disk says.
    """
    output = output.resolve()
    with _disk_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        with _locked(output):
            folder, replaced = _beside(output, "unfinished"), _beside(output, "replaced")
            _clear(output, folder, replaced)
            check_output(output, replace=replace, marker=marker)
            folder.mkdir()
            try:
                yield folder
                _sync(folder)
                _swap(folder, output, replaced)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def _beside(output: Path, what: str) -> Path:
    return output.with_name(f".{output.name}.{what}")


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[None]:
    """The lock goes with its process, however that ends."""
    lock = FileLock(_beside(output, "lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as exc:
        raise UnsupportedExportError(
            f"`output` {output.name!r} is being written by another run; wait for it or name another folder."
        ) from exc
    try:
        yield
    finally:
        _beside(output, "lock").unlink(missing_ok=True)
        lock.release()


def _clear(output: Path, folder: Path, replaced: Path) -> None:
    """What a killed run left; one killed between the two renames of `_swap` gets its old export back."""
    shutil.rmtree(folder, ignore_errors=True)
    if replaced.exists() and not output.exists():
        replaced.rename(output)
    shutil.rmtree(replaced, ignore_errors=True)


def _swap(folder: Path, output: Path, replaced: Path) -> None:
    if output.exists():
        output.rename(replaced)
    folder.rename(output)
    _sync_one(output.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _sync(folder: Path) -> None:
    """On the disk before it gets its name: a power cut leaves a whole folder, or none."""
    for path in (*folder.rglob("*"), folder):
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk_errors(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            said = f"The disk of `output` {output.name!r} is full; make room, or name a folder on another."
        else:
            said = f"`output` {output.name!r} could not be written ({exc.strerror or exc}); see the cause."
        raise ExportError(said) from exc
