"""Previews: what the latents look like, by a linear map from latent channels to RGB.

The map is fitted once for each VAE: colour patches are encoded, and least squares finds the 3 x
(channels + 1) matrix that leads from a latent cell to the mean colour of its pixels. So any VAE has
previews, at the cost of one encoding and, per step, one small matrix product.
"""

from __future__ import annotations

from typing import Any

import torch

from backends._on_its_way import OnItsWay, begin

PATCHES = 6
"""Grey and colour steps per side of the fitting picture: 36 colours."""


def fit(vae: Any, cell: int, device: torch.device, size: tuple[int, int] | None = None) -> torch.Tensor:
    """The map of this VAE as [channels + 1, 3]; `cell` is the pixels of a latent cell's side.

    `device` is where the VAE runs: an offloaded one rests elsewhere. `size` is the height and width
    in pixels of the one picture that it encodes, for an encoder that knows few.
    """
    colours = _colours()  # [36, 3] in -1..1
    side = PATCHES * cell * 2  # two cells a patch, so that borders between colours weigh little
    grid = colours.reshape(1, PATCHES, PATCHES, 3).permute(0, 3, 1, 2)
    picture = torch.nn.functional.interpolate(grid, size or (side, side), mode="nearest")
    encoded = vae.encode(picture.to(device, vae.dtype)).latent_dist.mode()
    latents = encoded.float().cpu()[0].flatten(1).T  # [cells, channels]
    wanted = torch.nn.functional.avg_pool2d(picture, cell)[0].flatten(1).T  # [cells, 3]
    fitted: torch.Tensor = torch.linalg.lstsq(_with_one(latents), wanted).solution
    return fitted


def show(latents: torch.Tensor, rgb: torch.Tensor) -> OnItsWay:
    """A picture of latents [channels, height, width], before the VAE's scaling, one pixel a cell.

    `rgb` is where the latents are.
    """
    _, height, width = latents.shape
    cells = latents.float().flatten(1).T
    pixels = ((_with_one(cells) @ rgb).clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
    return begin(pixels.reshape(height, width, 3))


def _with_one(cells: torch.Tensor) -> torch.Tensor:
    return torch.cat([cells, torch.ones(len(cells), 1, device=cells.device)], dim=1)


def _colours() -> torch.Tensor:
    """36 colours spread over the RGB cube, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(PATCHES * PATCHES, 3, generator=generator) * 2 - 1
