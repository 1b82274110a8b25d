"""Region: shared memory under a name that tells whose it is, and the sweep of what killed owners left."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path("/dev/shm")
"""Where Linux, the only system that Triton serves on, shows POSIX shared memory as files."""

_NAME = re.compile(r"triptych_(\d+)_client_(\d+)_[0-9a-f]+")


class Region:
    """Blocking. Its name is gone as soon as the server has opened it, so nothing is left by a kill."""

    def __init__(self, size: int) -> None:
        """Raises `OSError` where the machine has no such memory, or no more of it."""
        self.name = f"triptych_{os.getpid()}_client_{_namespace()}_{secrets.token_hex(8)}"
        self.size = size
        descriptor = os.open(FOLDER / self.name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)  # a file of holes would kill who writes to a full disk
            self.memory = mmap.mmap(descriptor, size)
        except OSError:
            self.forget_name()
            raise
        finally:
            os.close(descriptor)

    def forget_name(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (FOLDER / self.name).unlink()

    def __repr__(self) -> str:
        return f"<Region {self.name} of {self.size:,} bytes>"


def orphans(names: Iterable[str]) -> list[str]:
    """Those of processes of this machine that no longer run; blocking."""
    return [name for name in names if _is_orphan(name)]


def sweep() -> list[str]:
    """Remove what killed processes left; blocking. The names."""
    if not FOLDER.is_dir():
        return []
    found = orphans(os.listdir(FOLDER))
    for name in found:
        with contextlib.suppress(OSError):
            (FOLDER / name).unlink()
    return found


def _is_orphan(name: str) -> bool:
    named = _NAME.fullmatch(name)
    if named is None or int(named[2]) != _namespace():
        return False
    try:
        os.kill(int(named[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _namespace() -> int:
    """Process ids mean nothing in another container, which may share this memory all the same."""
    with contextlib.suppress(OSError):
        return os.stat("/proc/self/ns/pid").st_ino
    return 0
