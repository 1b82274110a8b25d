"""What the user of Diffusers would have written, with nothing of ours in it, and requests to compare."""

from __future__ import annotations

import asyncio
import inspect
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from backends import _tasks
from backends._pipeline import PipelineBackend
from router.request import GenerateRequest
from router.types import Generated, RawImage, Task
from tests.miniatures import SIDE

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
    pipeline = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    kind = _tasks.pipeline_classes(type(pipeline))[task]
    wanted = inspect.signature(kind).parameters
    made = kind(**{name: part for name, part in pipeline.components.items() if name in wanted})
    made.set_progress_bar_config(disable=True)
    return made


def plain_picture(folder: Path, request: GenerateRequest) -> np.ndarray[Any, Any]:
    return run_plain(plain_pipeline(folder, request.task), request)


def run_plain(pipeline: Any, request: GenerateRequest) -> np.ndarray[Any, Any]:
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


async def online(backend: PipelineBackend, requests: list[GenerateRequest]) -> list[Generated]:
    """The first half at once, the others when one of those has made a step: none waits for a clock."""
    under_way = asyncio.Event()
    half = len(requests) // 2

    async def arrive(index: int, request: GenerateRequest) -> Generated:
        if index >= half:
            await under_way.wait()
        return await backend.generate(request, lambda event: under_way.set(), None)

    return await asyncio.gather(*(arrive(i, request) for i, request in enumerate(requests)))
