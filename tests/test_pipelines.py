"""Many requests through one pipeline: every family and task, equal to the plain Diffusers pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backends._gather import Digests, Gathering
from backends.diffusers import DiffusersBackend
from router.config import InstanceConfig
from router.lane import Lane
from router.request import GenerateRequest
from router.types import TASKS, Task
from tests.miniatures import FAMILIES, Family, miniature
from tests.plain_pipelines import (
    PROMPTS,
    difference,
    mixed_requests,
    online,
    pixels,
    plain_picture,
    plain_pipeline,
)

Lanes = Callable[[str], Lane]


async def backend_of(folder: Path, lanes: Lanes, **fields: Any) -> DiffusersBackend:
    instance = InstanceConfig(
        name="miniature", backend="diffusers", source=str(folder), device="cpu", **fields
    )
    backend = DiffusersBackend(instance, lanes)
    await backend.probe()
    await backend.load()
    return backend


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
