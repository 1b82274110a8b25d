"""Many requests through one pipeline: every family and task, equal to the plain Diffusers pipeline."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from backends import _tasks
from backends._gather import Digests, Gathering
from backends.diffusers import DiffusersBackend
from router.config import InstanceConfig
from router.lane import Lane
from router.request import GenerateRequest
from router.types import TASKS, Generated, RawImage, Task
from tests.miniatures import FAMILIES, SIDE, Family, miniature

Lanes = Callable[[str], Lane]

PICTURE = RawImage(
    SIDE, SIDE, np.random.default_rng(0).integers(0, 256, SIDE * SIDE * 3, dtype=np.uint8).tobytes()
)
MASK = RawImage(SIDE, SIDE, np.repeat((np.indices((SIDE, SIDE)).sum(0) > SIDE) * np.uint8(255), 3).tobytes())
PROMPTS = ("a red circle", "blue star on a white background")


def mixed_requests(task: Task, count: int = 8, **others: Any) -> list[GenerateRequest]:
    """Requests that differ in steps, guidance, seed and prompt."""
    requests = []
    for i in range(count):
        fields: dict[str, Any] = {
            "prompt": PROMPTS[i % 2],
            "height": SIDE,
            "width": SIDE,
            "num_inference_steps": 3 + i % 5,
            "guidance_scale": 1.0 if i % 3 == 0 else 2.0 + i,
            "seed": i,
        }
        if task != "text-to-image":
            fields |= {"image": PICTURE, "strength": 0.5 + 0.06 * i}
        if task == "inpainting":
            fields |= {"mask_image": MASK}
        requests.append(GenerateRequest.of(**fields, **others))
    return requests


@cache
def plain_pipeline(folder: Path, task: Task) -> Any:
    """What the user of Diffusers would have written, with nothing of ours in it."""
    pipeline = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    kind = _tasks.pipeline_classes(type(pipeline))[task]
    wanted = inspect.signature(kind).parameters
    made = kind(**{name: part for name, part in pipeline.components.items() if name in wanted})
    made.set_progress_bar_config(disable=True)
    return made


def plain_picture(folder: Path, request: GenerateRequest) -> np.ndarray[Any, Any]:
    pipeline = plain_pipeline(folder, request.task)
    accepted = inspect.signature(type(pipeline).__call__).parameters
    fields: dict[str, Any] = {
        "prompt": request.prompt,
        "height": request.height,
        "width": request.width,
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
    }
    if request.image:
        fields |= {
            "image": Image.frombytes("RGB", (SIDE, SIDE), PICTURE.pixels),
            "strength": request.strength,
        }
    if request.mask_image:
        fields |= {"mask_image": Image.frombytes("RGB", (SIDE, SIDE), MASK.pixels).convert("L")}
    generator = torch.Generator("cpu").manual_seed(request.seed or 0)
    fields = {name: value for name, value in fields.items() if name in accepted}
    return np.asarray(pipeline(**fields, generator=generator).images[0])


def pixels(image: RawImage | None) -> np.ndarray[Any, Any]:
    assert image is not None
    return np.frombuffer(image.pixels, np.uint8).reshape(image.height, image.width, 3)


def difference(made: Generated, folder: Path, request: GenerateRequest) -> int:
    """The largest difference of any channel of any pixel, of 255."""
    mine = pixels(made.pictures[0].image).astype(int)
    return int(np.abs(mine - plain_picture(folder, request)).max())


async def backend_of(folder: Path, lanes: Lanes, **fields: Any) -> DiffusersBackend:
    instance = InstanceConfig(
        name="miniature", backend="diffusers", source=str(folder), device="cpu", **fields
    )
    backend = DiffusersBackend(instance, lanes)
    await backend.probe()
    await backend.load()
    return backend


async def online(backend: DiffusersBackend, requests: list[GenerateRequest]) -> list[Generated]:
    """All requests at once, each arriving a little later than the one before."""

    async def arrive(index: int, request: GenerateRequest) -> Generated:
        await asyncio.sleep(0.01 * index)
        return await backend.generate(request, lambda event: None, None)

    return await asyncio.gather(*(arrive(i, request) for i, request in enumerate(requests)))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
async def test_mixed_requests_that_share_ticks_equal_the_plain_pipeline(
    family: Family, task: Task, miniatures: Path, lanes: Lanes
) -> None:
    folder = miniature(family, miniatures)
    requests = mixed_requests(task)
    backend = await backend_of(folder, lanes)
    made = await online(backend, requests)
    assert max(difference(*pair) for pair in zip(made, [folder] * 8, requests, strict=True)) <= 1
    assert backend.lane.statistics().occupancy > 1.5
    await backend.unload()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
async def test_reproducible_requests_are_bit_equal_to_the_plain_pipeline_among_neighbours(
    family: Family, task: Task, miniatures: Path, lanes: Lanes
) -> None:
    folder = miniature(family, miniatures)
    requests = mixed_requests(task, 3) + mixed_requests(task, 8, reproducible=True)[3:]
    made = await online(await backend_of(folder, lanes), requests)
    differences = [difference(*pair) for pair in zip(made, [folder] * 8, requests, strict=True)]
    assert differences[3:] == [0] * 5


async def test_tasks_and_schedulers_share_ticks(miniatures: Path, lanes: Lanes) -> None:
    """Text-to-image, image-to-image and inpainting, integer and real timesteps, in common batches."""
    folder = miniature("sd15", miniatures)
    backend = await backend_of(folder, lanes)
    requests = [
        request.model_copy(update={"scheduler": scheduler})
        for task in TASKS
        for request, scheduler in zip(mixed_requests(task, 2), ("EulerDiscrete", "DDIM"), strict=True)
    ]
    await asyncio.gather(*(backend.generate(request, lambda event: None, None) for request in requests))
    alone = sum((request.num_inference_steps or 0) for request in requests)
    assert backend.lane.statistics().ticks < alone


async def test_pictures_of_one_request_equal_requests_of_one_picture(miniatures: Path, lanes: Lanes) -> None:
    folder = miniature("sd15", miniatures)
    backend = await backend_of(folder, lanes)
    request = mixed_requests("text-to-image", 1)[0].model_copy(update={"num_images_per_prompt": 3, "seed": 7})
    made = await backend.generate(request, lambda event: None, None)
    assert [picture.seed for picture in made.pictures] == [7, 8, 9]
    for picture in made.pictures:
        single = request.model_copy(update={"num_images_per_prompt": 1, "seed": picture.seed})
        assert np.abs(pixels(picture.image).astype(int) - plain_picture(folder, single)).max() <= 1


async def test_flux_with_as_many_image_ids_as_rows(miniatures: Path, lanes: Lanes) -> None:
    """At 64x64 `img_ids` have 16 rows; so has the batch here."""
    folder = miniature("flux", miniatures)
    backend = await backend_of(folder, lanes, row_limit=16)
    requests = [
        GenerateRequest.of(
            prompt=PROMPTS[0], height=64, width=64, num_inference_steps=3, guidance_scale=3.5, seed=i
        )
        for i in range(16)
    ]
    made = await asyncio.gather(
        *(backend.generate(request, lambda event: None, None) for request in requests)
    )
    assert max(generated.rows / generated.ticks for generated in made) > 8
    assert max(difference(*pair) for pair in zip(made, [folder] * 16, requests, strict=True)) <= 1


async def test_true_guidance_calls_the_denoiser_twice_a_step(miniatures: Path, lanes: Lanes) -> None:
    backend = await backend_of(miniature("flux", miniatures), lanes)
    request = GenerateRequest.of(
        prompt="a red circle",
        negative_prompt="blue",
        true_cfg_scale=3.0,
        guidance_scale=3.5,
        height=64,
        width=64,
        num_inference_steps=4,
        seed=1,
    )
    steps: list[Any] = []
    await backend.generate(request, steps.append, None)
    assert [(step.index, step.total) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]


async def test_heun_reports_steps_and_not_calls(miniatures: Path, lanes: Lanes) -> None:
    backend = await backend_of(miniature("sd15", miniatures), lanes)
    request = mixed_requests("text-to-image", 1)[0].model_copy(
        update={"scheduler": "HeunDiscrete", "num_inference_steps": 5}
    )
    steps: list[Any] = []
    made = await backend.generate(request, steps.append, None)
    assert [(step.index, step.total) for step in steps] == [(i, 5) for i in range(1, 6)]
    assert made.ticks >= 9  # 2 N - 1 denoiser calls, and the text encoder and decoder


async def test_every_offered_scheduler_makes_a_picture(miniatures: Path, lanes: Lanes) -> None:
    backend = await backend_of(miniature("sd15", miniatures), lanes)
    offered = (await backend.probe()).schedulers
    assert {"DDIM", "LCM", "EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep"} <= set(offered)
    request = mixed_requests("text-to-image", 1)[0].model_copy(update={"num_inference_steps": 4})
    for scheduler in offered:
        made = await backend.generate(
            request.model_copy(update={"scheduler": scheduler}), lambda event: None, None
        )
        assert made.pictures[0].image is not None, scheduler


@pytest.mark.parametrize("family", FAMILIES)
async def test_previews_come_closer_to_the_picture_with_each_step(
    family: Family, miniatures: Path, lanes: Lanes
) -> None:
    backend = await backend_of(miniature(family, miniatures), lanes)
    request = mixed_requests("text-to-image", 1)[0].model_copy(
        update={"previews": True, "num_inference_steps": 6}
    )
    steps: list[Any] = []
    await backend.generate(request, steps.append, None)
    previews = [pixels(step.preview).astype(int) for step in steps]
    assert all(preview.shape == (8, 8, 3) for preview in previews)
    distances = [np.abs(preview - previews[-1]).mean() for preview in previews]
    assert distances[0] > distances[-2] >= 0
    assert previews[-1].std() > 0


async def test_a_row_limit_below_one_request_still_serves_it(miniatures: Path, lanes: Lanes) -> None:
    folder = miniature("sd15", miniatures)
    backend = await backend_of(folder, lanes, row_limit=1)
    request = mixed_requests("text-to-image", 2)[1]
    assert request.guidance_scale is not None
    assert request.guidance_scale > 1
    assert difference(await backend.generate(request, lambda event: None, None), folder, request) <= 1


async def test_padding_to_row_buckets_changes_no_picture(miniatures: Path, lanes: Lanes) -> None:
    folder = miniature("sd15", miniatures)
    backend = await backend_of(folder, lanes, options={"row_buckets": [4, 16]})
    requests = mixed_requests("text-to-image", 5)
    made = await online(backend, requests)
    assert max(difference(*pair) for pair in zip(made, [folder] * 5, requests, strict=True)) <= 1


@torch.no_grad()
def test_within_a_bucket_rows_depend_on_no_neighbour_and_no_slot(miniatures: Path) -> None:
    unet = plain_pipeline(miniature("sd15", miniatures), "text-to-image").unet
    gathering = Gathering(unet, row_limit=8, row_buckets=(8,))
    generator = torch.Generator().manual_seed(0)

    def draw() -> Any:
        values = {
            "sample": torch.randn(1, 4, 8, 8, generator=generator),
            "encoder_hidden_states": torch.randn(1, 77, unet.config.cross_attention_dim, generator=generator),
        }
        return gathering.call((), {**values, "timestep": torch.tensor(7)}, Digests(), share=True)

    mine = draw()
    alone = gathering([mine])[0].sample
    for slot in range(8):
        calls = [draw() for _ in range(7)]
        calls.insert(slot, mine)
        assert torch.equal(gathering(calls)[slot].sample, alone)


async def test_the_shared_pipeline_keeps_its_own_state(miniatures: Path, lanes: Lanes) -> None:
    """A request's scheduler, guidance and stand-ins never reach the pipeline that all share."""
    backend = await backend_of(miniature("sd15", miniatures), lanes)
    shared = backend._pipelines["text-to-image"]
    before = (shared.unet, shared.scheduler, dict(shared.config), dict(shared.scheduler.__dict__))
    await online(backend, mixed_requests("text-to-image", 2, scheduler="EulerDiscrete"))
    assert (shared.unet, shared.scheduler, dict(shared.config), dict(shared.scheduler.__dict__)) == before
    assert not hasattr(shared, "_guidance_scale")
