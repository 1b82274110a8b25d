"""What a library raised in a run of a module, in the words that the lane acts on."""

from __future__ import annotations

import torch

from backends._errors import is_device_lost, is_out_of_memory
from router.errors import DeviceLostError


def as_lane_error(exc: RuntimeError) -> Exception:
    """Out of memory and a lost device in the lane's words; anything else stays what it is."""
    if is_out_of_memory(exc):
        exc.with_traceback(None)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return MemoryError(str(exc))
    if is_device_lost(exc):
        return DeviceLostError("The device failed; restart the process.")
    return exc
