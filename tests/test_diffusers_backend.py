"""The Diffusers backend beyond the picture: what it says of itself, and its settings."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from router.capabilities import Capabilities
from tests.diffusers_doubles import Lanes, generate, loaded, make, request
from tests.miniatures import Family, miniature


@pytest.mark.parametrize(
    ("family", "name", "multiple", "size", "steps", "guidance"),
    [
        ("sd15", "stable-diffusion", 8, 64, 50, 7.5),
        ("sdxl", "stable-diffusion-xl", 8, 64, 50, 5.0),
        ("sd3", "stable-diffusion-3", 16, 64, 28, 7.0),
        ("flux", "flux", 16, 1024, 28, 3.5),
    ],
)
async def test_capabilities_come_from_the_models_own_configuration(
    family: Family,
    name: str,
    multiple: int,
    size: int,
    steps: int,
    guidance: float,
    miniatures: Path,
    lanes: Lanes,
) -> None:
    found = await make(lanes, miniature(family, miniatures)).probe()
    assert (found.family, found.size_multiple, found.dtype, found.device) == (
        name,
        multiple,
        "float32",
        "cpu",
    )
    assert found.tasks == {"text-to-image", "image-to-image", "inpainting"}
    assert (found.defaults.height, found.defaults.width) == (size, size)
    assert (found.defaults.num_inference_steps, found.defaults.guidance_scale) == (steps, guidance)
    assert found.true_cfg is (family == "flux")


async def test_a_flux_without_guidance_embedding_refuses_guidance(miniatures: Path, lanes: Lanes) -> None:
    found = await make(lanes, miniature("flux", miniatures, guidance_embeds=False)).probe()
    assert found.defaults.guidance_scale is None
    assert "`guidance_scale` has no effect" in (found.why_not(request()) or "")


async def test_weights_are_counted_from_the_headers_without_loading(model_folder: Path, lanes: Lanes) -> None:
    found = await make(lanes, model_folder).probe()
    backend = await loaded(lanes, model_folder)
    parts = backend._pipelines["text-to-image"].components.values()
    real = sum(
        p.numel() * 4 for part in parts if isinstance(part, torch.nn.Module) for p in part.parameters()
    )
    assert found.footprint.weights_bytes == pytest.approx(real, rel=0.01)


async def test_half_the_dtype_is_half_the_bytes(model_folder: Path, lanes: Lanes) -> None:
    whole, half = [
        (await make(lanes, model_folder, dtype=dtype).probe()).footprint for dtype in ("float32", "bfloat16")
    ]
    assert half.weights_bytes * 2 == whole.weights_bytes


async def test_bfloat16_starts_from_the_same_noise(model_folder: Path, lanes: Lanes) -> None:
    """Pictures of two dtypes are of the same thing: torch draws in float32 and then casts."""
    drawn = [
        torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=dtype).to(torch.float16)
        for dtype in (torch.float32, torch.float16)
    ]
    assert torch.equal(*drawn)
    made = []
    for dtype in ("float32", "bfloat16"):
        generated = await generate(await loaded(lanes, model_folder, dtype=dtype))
        assert generated.pictures[0].image is not None
        made.append(
            torch.frombuffer(bytearray(generated.pictures[0].image.pixels), dtype=torch.uint8).float()
        )
    assert (made[0] - made[1]).abs().mean() < 4


async def test_two_lanes_on_one_cpu_make_the_same_picture(model_folder: Path, lanes: Lanes) -> None:
    first, second = [await loaded(lanes, model_folder, device=device) for device in ("cpu:0", "cpu:1")]
    assert first.lane is not second.lane
    made = await asyncio.gather(generate(first), generate(second))
    assert made[0].pictures[0].image == made[1].pictures[0].image


@pytest.mark.parametrize(
    "options",
    [{"attention": "slicing"}, {"attention": "native"}, {"vae_tiling": True}, {"vae_slicing": True}],
)
async def test_settings_that_save_memory_change_nothing_visible(
    model_folder: Path, lanes: Lanes, options: dict[str, Any]
) -> None:
    plain = await generate(await loaded(lanes, model_folder))
    saving = await generate(await loaded(lanes, model_folder, options=options))
    first, second = (
        torch.frombuffer(bytearray(g.pictures[0].image.pixels), dtype=torch.uint8).int()
        for g in (plain, saving)
    )  # type: ignore[union-attr]
    assert (first - second).abs().max() <= 1


async def test_t5_reads_longer_prompts(miniatures: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, miniature("flux", miniatures))
    assert (await generate(backend, prompt="circle " * 80)).pictures[0].image


async def test_why_not_names_the_sizes_near(model_folder: Path, lanes: Lanes) -> None:
    found: Capabilities = await make(lanes, model_folder).probe()
    said = found.why_not(request(width=68)) or ""
    assert "`width` must be a multiple of 8" in said
    assert "64" in said
    assert "72" in said
