"""Tiny networks that spandrel reads, and spandrel itself without the torchvision that it asks for."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from types import ModuleType

WEIGHT_SEED = 20


def import_spandrel() -> None:
    """Stands in for torchvision while spandrel is imported the first time.

    Two of its networks, which make nothing larger, name three things of torchvision. Its wheels fit one
    build of torch alone, which need not be the one that is here.
    """
    if "spandrel" in sys.modules:
        return
    stand_in = _torchvision()
    absent = {name: module for name, module in stand_in.items() if name not in sys.modules}
    sys.modules.update(absent)
    try:
        import spandrel  # noqa: F401
    finally:
        for name in absent:
            del sys.modules[name]


def _torchvision() -> dict[str, ModuleType]:
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    modules = {name: ModuleType(name) for name in names}
    functional = modules[names[-1]]
    functional.InterpolationMode = Enum("InterpolationMode", "NEAREST BILINEAR")  # type: ignore[attr-defined]
    functional.rotate = functional.normalize = None  # type: ignore[attr-defined]
    return modules


def compact(file: Path, scale: int = 4, channels: int = 3) -> Path:
    """A RealESRGAN Compact network (SRVGG) of two layers with 8 features, as a safetensors file."""
    import_spandrel()
    import safetensors.torch
    import torch
    from spandrel.architectures.Compact import Compact

    with torch.random.fork_rng():
        torch.manual_seed(WEIGHT_SEED)
        network = Compact(
            num_in_ch=channels, num_out_ch=channels, num_feat=8, num_conv=2, upscale=scale, act_type="prelu"
        )
    safetensors.torch.save_file(network.state_dict(), file)
    return file
