"""The dtype of an instance: the one that is configured, or what its device and its family take."""

from __future__ import annotations

import torch

from backends._vae import DTYPES
from router.config import InstanceConfig
from router.errors import ConfigError
from router.model_folder import ModelFolder

_BFLOAT16 = (8, 0)
"""Least compute capability of CUDA devices that calculate in bfloat16: Ampere."""


def dtype_of(instance: InstanceConfig, device: str, folder: ModelFolder) -> torch.dtype:
    """Raises `ConfigError` for one that is none, or not of this device."""
    name = instance.dtype
    if name == "auto":
        return automatic(device, is_unet="unet" in folder.components(), has_bfloat16=_has_bfloat16(device))
    if name not in DTYPES:
        raise ConfigError(f"{instance.name}: `dtype` is {name!r}; use `auto` or one of {', '.join(DTYPES)}.")
    if name == "float16" and device.startswith("cpu"):
        raise ConfigError(f"{instance.name}: `dtype` float16 does not run on a CPU; use float32 or bfloat16.")
    return DTYPES[name]


def automatic(device: str, *, is_unet: bool, has_bfloat16: bool) -> torch.dtype:
    """16 bits off the CPU. Transformers (SD3, FLUX) were trained and published in bfloat16.

    FLUX's activations leave float16's range: Diffusers clips them, and its documentation warns of other
    pictures. UNets keep within it, where float16 has three digits more; their VAEs are `_vae`'s affair.
    """
    if device.startswith("cpu"):
        return torch.float32
    return torch.bfloat16 if has_bfloat16 and not is_unet else torch.float16


def notes(dtype: torch.dtype, folder: ModelFolder) -> tuple[str, ...]:
    """What an operator should see of it."""
    if dtype == torch.float16 and "transformer" in folder.components():
        return ("float16, whose range a transformer's activations may leave; bfloat16 is meant for it",)
    return ()


def _has_bfloat16(device: str) -> bool:
    return device.startswith("cuda") and torch.cuda.get_device_capability(device) >= _BFLOAT16
