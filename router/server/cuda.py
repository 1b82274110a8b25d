"""Whether CUDA can be used on this machine, as its driver says: no model library is imported for it."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_SUCCESS = 0
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE; one that is hidden by CUDA_VISIBLE_DEVICES too


@functools.cache
def is_available() -> bool | None:
    """Asked once, in some tenths of a second: call it in a thread. `None` where the driver gives no answer.

    It is about the machine; what an instance runs on is told with its device.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return False  # without a driver there is nothing to ask
    begun, count = driver.cuInit(0), ctypes.c_int()
    if begun == _NO_DEVICE:
        return False
    if begun != _SUCCESS or driver.cuDeviceGetCount(ctypes.byref(count)) != _SUCCESS:
        return None
    return count.value > 0
