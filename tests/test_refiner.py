"""The refiner as a second stage: equal to plain Diffusers, gathered, counted, refused where it is not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, UNet2DConditionModel

from router.config import InstanceConfig, ModelConfig, ModelDefaults, RouterConfig
from router.errors import ConfigError, InvalidRequestError, LoadError, NoRouteError
from router.router import BackendRouter
from router.types import Step
from tests.command_line import as_object, configure, triptych
from tests.diffusers_doubles import Lanes, generate, loaded, make, request
from tests.miniatures import BUILDERS, SIDE, TEXT_WIDTH, draw_weights, miniature
from tests.pipeline_layout import save_pipeline
from tests.plain_pipelines import PICTURE, pixels, plain_pipeline
from tests.services import fake_config, serving

STEPS = 6


def refiner_parts(**changes: Any) -> Any:
    """As the published one: the second text encoder alone, and told how beautiful the picture is to be."""
    parts = BUILDERS["sdxl"]()
    widths = {"cross_attention_dim": TEXT_WIDTH, "projection_class_embeddings_input_dim": 5 * 8 + TEXT_WIDTH}
    unet = UNet2DConditionModel.from_config({**parts["unet"][1].config, **widths, **changes})
    return parts | {
        "_class_name": "StableDiffusionXLImg2ImgPipeline",
        "requires_aesthetics_score": True,
        "force_zeros_for_empty_prompt": False,
        "text_encoder": (None, None),
        "tokenizer": (None, None),
        "unet": ("diffusers", unet),
    }


@pytest.fixture(scope="module")
def base(miniatures: Path) -> Path:
    return miniature("sdxl", miniatures)


@pytest.fixture(scope="module")
def refiner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refiners") / "refiner"
    parts = refiner_parts()
    draw_weights(parts)
    save_pipeline(parts, folder)
    return folder


def two_stages(base: Path, refiner: Path, start: float, scheduler: str = "", **fields: Any) -> Any:
    """What the user of Diffusers would have written."""
    first = plain_pipeline(base, "text-to-image")
    shared = {name: getattr(first, name) for name in ("text_encoder_2", "tokenizer_2", "vae")}
    second = StableDiffusionXLImg2ImgPipeline.from_pretrained(refiner, **shared)
    second.set_progress_bar_config(disable=True)
    own = first.scheduler
    try:
        for pipeline in (first, second):
            kind = {each.__name__: each for each in own.compatibles}.get(scheduler, type(own))
            pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
        asked = {"prompt": "a red circle", "num_inference_steps": STEPS, "guidance_scale": 3.0, **fields}
        generator = torch.Generator("cpu").manual_seed(1)
        latents = first(
            **asked, height=SIDE, width=SIDE, denoising_end=start, output_type="latent", generator=generator
        ).images
        made = second(**asked, image=latents, denoising_start=start, generator=generator)
        return np.asarray(made.images[0]).astype(int)
    finally:
        first.scheduler = own


@pytest.mark.parametrize(
    ("start", "scheduler", "fields"),
    [
        (0.5, "", {}),
        (0.8, "", {"negative_prompt": "blue"}),
        (0.3, "EulerAncestralDiscreteScheduler", {}),
        (0.5, "HeunDiscreteScheduler", {"guidance_scale": 1.0}),
    ],
)
async def test_pictures_are_those_of_diffusers_two_stages(
    start: float, scheduler: str, fields: dict[str, Any], base: Path, refiner: Path, lanes: Lanes
) -> None:
    backend = await loaded(lanes, base, options={"refiner": str(refiner)})
    asked = {"refiner_start": start, "num_inference_steps": STEPS, "scheduler": scheduler or None, **fields}
    made = await generate(backend, **asked, reproducible=True)
    expected = two_stages(base, refiner, start, scheduler, **fields)
    assert np.array_equal(pixels(made.pictures[0].image), expected)
    plain = await generate(backend, **asked | {"refiner_start": 1.0}, reproducible=True)
    assert plain.pictures[0].image != made.pictures[0].image


async def test_the_refiner_reads_long_prompts_too(base: Path, refiner: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, base, options={"refiner": str(refiner)})
    prompts = ("red circle " * 60, "red circle " * 60 + "blue star")
    made = [
        (await generate(backend, prompt=prompt, long_prompt="chunk", refiner_start=0.5)).pictures[0].image
        for prompt in prompts
    ]
    assert made[0] != made[1]


async def test_both_stages_share_ticks_with_the_neighbours(base: Path, refiner: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, base, options={"refiner": str(refiner)})
    starts = (0.3, 0.5, 0.5, 0.7)
    made = await asyncio.gather(
        *(generate(backend, refiner_start=start, num_inference_steps=STEPS) for start in starts)
    )
    for start, generated in zip(starts, made, strict=True):
        expected = two_stages(base, refiner, start)
        assert np.abs(pixels(generated.pictures[0].image).astype(int) - expected).max() <= 1
    calls = backend._refiner._gathering
    assert calls is not backend._gatherings["unet"]
    assert min(generated.rows / generated.ticks for generated in made) > 2


@pytest.mark.parametrize("never_waits", [False, True])
async def test_steps_and_previews_are_counted_over_both_stages(
    never_waits: bool, base: Path, refiner: Path, lanes: Lanes
) -> None:
    backend = await loaded(lanes, base, options={"refiner": str(refiner)})
    backend.never_waits = never_waits  # as on CUDA
    for scheduler in (None, "heun"):
        steps: list[Any] = []
        fields = {
            "refiner_start": 0.5,
            "num_inference_steps": STEPS,
            "previews": True,
            "scheduler": scheduler,
        }
        await backend.generate(request(**fields), steps.append, None)
        assert all(isinstance(step, Step) and step.preview is not None for step in steps)
        assert [step.index for step in steps] == list(range(1, len(steps) + 1))
        assert {step.total for step in steps} == {len(steps)}
        assert STEPS <= len(steps) <= STEPS + 1, "a step of second order may be cut in two"


async def test_a_share_that_leaves_a_stage_nothing_is_refused(
    base: Path, refiner: Path, lanes: Lanes
) -> None:
    backend = await loaded(lanes, base, options={"refiner": str(refiner)})
    for start, stage in ((0.999, "refiner; lower it"), (0.01, "model; raise it")):
        with pytest.raises(
            InvalidRequestError, match=f"none of the 2 `num_inference_steps` to the {stage}"
        ) as caught:
            await generate(backend, refiner_start=start, num_inference_steps=2)
        assert caught.value.param == "refiner_start"


async def test_it_is_counted_shown_and_for_pictures_from_text(
    base: Path, refiner: Path, lanes: Lanes
) -> None:
    plain = await make(lanes, base).probe()
    found = await make(lanes, base, options={"refiner": str(refiner)}).probe()
    unet = UNet2DConditionModel.from_config(refiner_parts()["unet"][1].config)
    weights = sum(weight.numel() for weight in unet.parameters()) * 4
    assert found.footprint.weights_bytes == plain.footprint.weights_bytes + weights
    assert "refiner refiner" in found.notes
    assert plain.why_not(request(refiner_start=0.8)) == "it has no refiner; leave `refiner_start` out."
    assert plain.why_not(request(refiner_start=1.0)) is None
    changed = request(refiner_start=0.8, image=PICTURE, strength=0.9)
    assert (found.why_not(changed) or "").startswith("its refiner follows text-to-image, not image-to-image")


async def test_what_is_no_refiner_of_this_model_is_refused_before_loading(
    base: Path, refiner: Path, miniatures: Path, tmp_path: Path, lanes: Lanes
) -> None:
    with pytest.raises(
        ConfigError, match="for Stable Diffusion XL, and the model is a StableDiffusionPipeline"
    ):
        await make(lanes, miniature("sd15", miniatures), options={"refiner": str(refiner)}).probe()
    with pytest.raises(LoadError, match="'sdxl' is a StableDiffusionXLPipeline, and a refiner is a"):
        await make(lanes, base, options={"refiner": str(base)}).probe()
    save_pipeline(refiner_parts(cross_attention_dim=16), tmp_path / "narrow")
    with pytest.raises(
        LoadError, match="'narrow' reads text of width 16, and the model's second encoder writes 32"
    ):
        await make(lanes, base, options={"refiner": str(tmp_path / "narrow")}).probe()
    with pytest.raises(LoadError, match=r"'xl-refiner.safetensors', which is no folder"):
        await make(lanes, base, options={"refiner": "models/xl-refiner.safetensors"}).probe()
    with pytest.raises(LoadError, match=r"lacks model_index\.json"):
        await make(lanes, base, options={"refiner": str(tmp_path)}).probe()


async def test_a_model_may_have_it_by_default(base: Path, refiner: Path) -> None:
    instance = InstanceConfig(
        name="xl", backend="diffusers", source=str(base), device="cpu", options={"refiner": str(refiner)}
    )
    model = ModelConfig(name="xl", instances=(instance,), defaults=ModelDefaults(refiner_start=0.5))
    async with BackendRouter(RouterConfig(models=(model,), default_model="xl")) as router:
        refined = await router.explain(prompt="a circle")
        changed = await router.explain(prompt="a circle", image=PICTURE)
    assert (refined.request.refiner_start, changed.request.refiner_start) == (0.5, None)
    assert refined.candidates == changed.candidates == ("xl",)


def test_the_command_line_and_the_service_take_it(
    folder: Path, base: Path, refiner: Path, tmp_path: Path
) -> None:
    configure(
        folder,
        f'[[models.xl.instances]]\nbackend = "diffusers"\nsource = "{base}"\ndevice = "cpu"\n'
        f'options = {{ refiner = "{refiner}" }}\n',
    )
    options = ("--steps", "4", "--refiner-start", "0.5", "--json", "--seed", "1")
    (made,) = as_object(triptych("generate", "a red circle", *options))["pictures"]
    assert made["parameters"]["refiner_start"] == 0.5
    with serving(tmp_path, fake_config()) as service:
        refused = service.post("/image/generate", prompt="a circle", refiner_start=0.8)
        assert refused.status_code == NoRouteError.status
        assert "it has no refiner" in refused.text
