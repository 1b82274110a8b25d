"""What a server leaves behind that was killed: stubs without a server, shared memory without an owner.

Regions are called `triptych_<process id of the owner>_...`, and stubs have the name in their command line.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
_NAME = re.compile(r"triptych_(\d+)_")
_STUB = "triton_python_backend_stub"


def prefix(owner: int) -> str:
    """What the names of a process's regions begin with."""
    return f"triptych_{owner}_"


def sweep(*, ended: int | None = None) -> list[str]:
    """Remove what belongs to processes that are no more, and to `ended`; says what that was."""
    swept = []
    for process, owner in _stubs():
        if owner == ended or not _is_alive(owner):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            swept.append(f"stub {process}")
    for region, owner in _regions():
        if owner == ended or not _is_alive(owner):
            region.unlink(missing_ok=True)
            swept.append(f"shared memory {region.name}")
    return swept


def _regions() -> Iterator[tuple[Path, int]]:
    for region in SHARED_MEMORY.glob("triptych_*"):
        if found := _NAME.match(region.name):
            yield region, int(found[1])


def _stubs() -> Iterator[tuple[int, int]]:
    """Process id of each stub with that of its server's owner."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            found = next(filter(None, map(_NAME.match, command)), None)
            if found and Path(command[0]).name == _STUB:
                yield int(process.name), int(found[1])


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
