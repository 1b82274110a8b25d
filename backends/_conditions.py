"""Under which conditions a measurement of a model's memory holds: the key of what is kept of it."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import diffusers
import torch
import transformers

from router.model_folder import ModelFolder


def conditions(
    folder: ModelFolder, device: str, dtype: torch.dtype, settings: Mapping[str, object]
) -> tuple[tuple[str, str], ...]:
    """`settings` are those of the instance that change what a run takes."""
    said = ", ".join(f"{name} {value}" for name, value in sorted(settings.items()))
    return (
        ("model", folder.fingerprint()),
        ("device", _device_name(device)),
        ("dtype", str(dtype).removeprefix("torch.")),
        ("settings", said),
        ("versions", _versions()),
    )


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device.partition(':')[0]} {platform.machine()}"


def _versions() -> str:
    libraries = (torch, diffusers, transformers)
    return ", ".join(f"{library.__name__} {library.__version__}" for library in libraries)
