"""Models that are not like the four families: what they can do is said, and done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from diffusers import (
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    StableDiffusionInpaintPipeline,
    UNet2DConditionModel,
)

from router.errors import MemoryBudgetError
from router.types import RawImage
from tests.diffusers_doubles import Lanes, generate, loaded, make
from tests.miniatures import miniature

PICTURE = RawImage(64, 64, bytes(range(256)) * 48)


def parts(family: Any, miniatures: Path) -> Any:
    return DiffusionPipeline.from_pretrained(miniature(family, miniatures), local_files_only=True)


async def test_a_unet_made_for_inpainting_does_nothing_else(
    miniatures: Path, tmp_path: Path, lanes: Lanes
) -> None:
    own = parts("sd15", miniatures)
    unet = UNet2DConditionModel.from_config({**own.unet.config, "in_channels": 9})
    StableDiffusionInpaintPipeline(
        own.vae,
        own.text_encoder,
        own.tokenizer,
        unet,
        own.scheduler,
        None,
        None,
        requires_safety_checker=False,
    ).save_pretrained(tmp_path / "model")
    backend = await loaded(lanes, tmp_path / "model")
    assert (await backend.probe()).tasks == {"inpainting"}
    made = await generate(backend, image=PICTURE, mask_image=PICTURE, strength=0.7, previews=True)
    assert made.pictures[0].image


async def test_a_pipeline_that_tells_no_steps_makes_its_picture(
    miniatures: Path, tmp_path: Path, lanes: Lanes
) -> None:
    text, picture = parts("flux", miniatures), parts("sd15", miniatures)
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        sample_size=32,
        cross_attention_dim=16,
        caption_channels=text.text_encoder_2.config.d_model,
        use_additional_conditions=False,
    )
    PixArtSigmaPipeline(
        text.tokenizer_2, text.text_encoder_2, picture.vae, transformer, DPMSolverMultistepScheduler()
    ).save_pretrained(tmp_path / "model")
    backend = await loaded(lanes, tmp_path / "model")
    assert not (await backend.probe()).previews
    assert (await generate(backend)).pictures[0].image


async def test_a_vae_that_failed_in_another_dtype_is_brought_back(miniatures: Path, lanes: Lanes) -> None:
    """SDXL casts it around encoding and decoding; left so, every later picture would fail."""
    backend = await loaded(lanes, miniature("sdxl", miniatures), dtype="bfloat16")
    vae = backend._pipelines["image-to-image"].vae

    def too_large(*args: Any, **kwargs: Any) -> Any:
        raise MemoryError

    vae.encode = too_large
    with pytest.raises(MemoryBudgetError):
        await generate(backend, image=PICTURE, strength=0.7)
    del vae.encode
    assert (await generate(backend)).pictures[0].image


async def test_model_offload_serves_one_picture_after_the_other(model_folder: Path, lanes: Lanes) -> None:
    """Diffusers takes its hooks off and sets them anew at the end of every picture."""
    plain = await generate(await loaded(lanes, model_folder))
    backend = make(lanes, model_folder)
    await backend.probe()
    backend.one_at_a_time = True
    backend.place = lambda pipeline: pipeline.enable_model_cpu_offload(device="cpu")  # type: ignore[method-assign]
    await backend.load()
    for _ in range(2):
        made = await generate(backend, previews=True)
        assert made.pictures[0].image == plain.pictures[0].image


async def test_sizes_of_two_numbers(model_folder: Path, lanes: Lanes) -> None:
    file = model_folder / "unet" / "config.json"
    file.write_text(file.read_text().replace('"sample_size": 8', '"sample_size": [8, 16]'))
    found = (await make(lanes, model_folder).probe()).defaults
    assert (found.height, found.width) == (64, 128)
