"""The dtype that `auto` is on each device for each family, decided without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backends import _dtype, _vae
from backends._dtype import automatic, dtype_of
from backends._vae import VaeOptions
from router.config import InstanceConfig
from router.model_folder import ModelFolder
from tests.miniatures import Family, miniature


@pytest.mark.parametrize(
    ("device", "is_unet", "has_bfloat16", "expected"),
    [
        ("cpu", True, False, torch.float32),
        ("cpu:1", False, False, torch.float32),
        ("cuda:0", True, True, torch.float16),
        ("cuda:0", True, False, torch.float16),
        ("cuda:1", False, True, torch.bfloat16),
        ("cuda:0", False, False, torch.float16),
        ("mps", False, False, torch.float16),
    ],
)
def test_transformers_are_in_bfloat16_where_the_card_has_it(
    device: str, is_unet: bool, has_bfloat16: bool, expected: torch.dtype
) -> None:
    assert automatic(device, is_unet=is_unet, has_bfloat16=has_bfloat16) == expected


@pytest.mark.parametrize(
    ("family", "card", "denoiser", "decoder"),
    [
        ("sd15", (9, 0), torch.float16, torch.float16),
        ("sdxl", (9, 0), torch.float16, torch.float32),
        ("sd3", (9, 0), torch.bfloat16, torch.bfloat16),
        ("flux", (8, 0), torch.bfloat16, torch.bfloat16),
        ("sdxl", (7, 5), torch.float16, torch.float32),
        ("flux", (7, 5), torch.float16, torch.float16),
    ],
)
def test_no_family_gets_one_that_it_overflows_in(
    family: Family,
    card: tuple[int, int],
    denoiser: torch.dtype,
    decoder: torch.dtype,
    miniatures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SDXL's VAE does in float16; FLUX does where a card has nothing else, and says so."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: card)
    folder = ModelFolder(miniature(family, miniatures), "mine")
    instance = InstanceConfig(name="mine", backend="diffusers", source=str(folder.folder))
    dtype = dtype_of(instance, "cuda:0", folder)
    assert (dtype, _vae.vae_dtype(VaeOptions(), folder, dtype)) == (denoiser, decoder)
    assert bool(_dtype.notes(dtype, folder)) is (family == "flux" and card < (8, 0))


def test_a_dtype_that_is_configured_stands(miniatures: Path) -> None:
    folder = ModelFolder(miniature("flux", miniatures), "mine")
    instance = InstanceConfig(name="mine", backend="diffusers", source="x", dtype="float16")
    assert dtype_of(instance, "cuda:0", folder) == torch.float16
