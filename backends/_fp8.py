"""fp8: a denoiser's linear layers in 8-bit floats, weights and activations, by torchao. Not run on a GPU."""

from __future__ import annotations

import importlib.util

import torch

from router.errors import ConfigError

LEAST_CAPABILITY = (8, 9)
"""Of CUDA devices whose matrix units multiply fp8: Ada; Hopper is (9, 0)."""

MULTIPLE = 16
"""Both sides of a weight must be multiples of it: `torch._scaled_mm`."""


def check(instance: str, device: str, dtype: torch.dtype) -> None:
    """Raises `ConfigError`, before anything is loaded, where it cannot be."""
    said = f"{instance}: option `quantize` is 'fp8'"
    if not device.startswith("cuda"):
        raise ConfigError(f"{said}, which runs on CUDA devices only, and `device` is {device!r}; drop it.")
    if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise ConfigError(f"{said}, which a {name} does not multiply; drop it.")
    if dtype != torch.bfloat16:
        raise ConfigError(f"{said}, which wants `dtype` bfloat16; set it.")
    if importlib.util.find_spec("torchao") is None:
        raise ConfigError(f"{said}, which needs torchao; pip install torchao.")


def quantize(module: torch.nn.Module) -> None:
    """In place. One scale for each row; those of activations are found anew in each run."""
    from torchao.quantization import (  # type: ignore[import-not-found, unused-ignore]
        Float8DynamicActivationFloat8WeightConfig,
        PerRow,
        quantize_,
    )

    quantize_(module, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()), filter_fn=fits)


def fits(module: torch.nn.Module, name: str) -> bool:
    """Linear layers of the right multiples; the small ones about timesteps and sizes stay as they are."""
    if not isinstance(module, torch.nn.Linear) or "embed" in name:
        return False
    return module.in_features % MULTIPLE == 0 and module.out_features % MULTIPLE == 0
