"""What becomes of memory that a model frees on the CPU: it stays, because the next tick wants it again."""

from __future__ import annotations

import contextlib
import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h> of glibc
_MOST = 2**31 - 1


def keep_freed_memory() -> None:
    """Tell glibc not to give large freed blocks back to the system. For the whole process.

    By its own rule it often maps and unmaps every activation: tens of megabytes of page faults in a
    run of a few rows. Other C libraries have other rules, and are left to them.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 -- only glibc has it
        libc.mallopt(_M_MMAP_THRESHOLD, _MOST)
        libc.mallopt(_M_TRIM_THRESHOLD, _MOST)


def give_back_freed_memory() -> None:
    """Give the system what is free now, after a model was loaded or unloaded."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
