"""Noise drawn in float32 and then cast, so that every dtype of a model starts from the same noise.

Diffusers draws in the dtype of the embeddings: float16 and float32 of one seed are then two pictures.
Only threads that ask for it (the lanes') draw differently; the application's own Diffusers calls do not.
"""

from __future__ import annotations

import sys
import threading
from typing import Any, cast

import torch
from diffusers.utils import torch_utils

_original = torch_utils.randn_tensor
_drawing = threading.local()


def draw_in_float32() -> None:
    """From now on the calling thread draws in float32. Installs itself on first use."""
    _drawing.in_float32 = True
    for module in [module for name, module in sys.modules.items() if name.startswith("diffusers.")]:
        if module.__dict__.get("randn_tensor") is _original:
            module.__dict__["randn_tensor"] = _randn_tensor


def _randn_tensor(*args: Any, **kwargs: Any) -> torch.Tensor:
    dtype = kwargs.get("dtype")
    if dtype in (None, torch.float32) or not getattr(_drawing, "in_float32", False):
        return cast(torch.Tensor, _original(*args, **kwargs))
    return cast(torch.Tensor, _original(*args, **{**kwargs, "dtype": torch.float32})).to(dtype)
