"""Geometry: which sizes a model makes, from the configurations of its denoiser and its VAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LATENT_SIDE = 128
"""Side of the latents where the configuration does not say: FLUX and SD3 make 1024x1024 by default."""

_VAE_BLOCKS = 4
"""Where the configuration does not say: a cell of 8x8 pixels."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes in pixels."""

    height: int
    width: int
    size_multiple: int
    min_side: int

    @classmethod
    def of(cls, denoiser: Mapping[str, Any], vae: Mapping[str, Any], *, patched: bool) -> Geometry:
        """`patched`: whether the denoiser reads 2x2 latents at once, as transformers do.

        A UNet halves its latents between blocks, and the last must keep one cell.
        """
        cell = 2 ** (len(vae.get("block_out_channels", [0] * _VAE_BLOCKS)) - 1)
        multiple = cell * (2 if patched else 1)
        size = denoiser.get("sample_size") or _LATENT_SIDE  # one number, or two
        height, width = size if isinstance(size, list) else (size, size)
        blocks = len(denoiser.get("block_out_channels", [0]))
        return cls(height * cell, width * cell, multiple, int(multiple * 2 ** (blocks - 1)))
