"""Timesteps: Diffusers' sinusoidal embedding with its frequencies computed once, by PyTorch.

Traced as it is, the frequencies are folded by the exporter's own `exp`, which differs in the last bits;
times a timestep of 1000 or a guidance of 3500 that is a phase error of 1e-3 in every call.
"""

from __future__ import annotations

import math

import torch
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn

_MAX_PERIOD = 10000


class KeptFrequencies(nn.Module):
    """Equal to `Timesteps`, bit for bit."""

    frequencies: Tensor

    def __init__(self, original: Timesteps) -> None:
        super().__init__()
        half = original.num_channels // 2
        exponent = -math.log(_MAX_PERIOD) * torch.arange(half, dtype=torch.float32)
        exponent = exponent / (half - original.downscale_freq_shift)
        self.register_buffer("frequencies", torch.exp(exponent), persistent=False)
        self.scale = original.scale
        self.flip_sin_to_cos = original.flip_sin_to_cos

    def forward(self, timesteps: Tensor) -> Tensor:
        phases = self.scale * (timesteps[:, None].float() * self.frequencies[None, :])  # [rows, half]
        halves = (torch.sin(phases), torch.cos(phases))
        return torch.cat(halves[::-1] if self.flip_sin_to_cos else halves, dim=-1)


def keep_frequencies(module: nn.Module) -> nn.Module:
    """The same module, its embeddings of even width replaced; what it computes stays as it is."""
    found = {name: part for name, part in module.named_modules() if type(part) is Timesteps}
    for name, original in found.items():
        if original.num_channels % 2 == 0:
            module.set_submodule(name, KeptFrequencies(original))
    return module
