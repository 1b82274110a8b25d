"""What only a CUDA device can show; without one each test is skipped and says so. See `scripts/gpu_check`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from backends._steps import StepEnd
from router.types import Step
from tests.diffusers_doubles import Lanes, generate, loaded, request
from tests.miniatures import FAMILIES, Family, miniature
from tests.test_compiled import pixels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none here"),
]

CUDA: dict[str, Any] = {"device": "cuda:0", "dtype": "float32"}
EXACT = {"tf32": False}


@pytest.fixture(autouse=True)
def waiting_is_allowed_again() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_gpu_makes_the_picture_of_the_cpu(family: Family, miniatures: Path, lanes: Lanes) -> None:
    source = miniature(family, miniatures)
    cpu = pixels(await generate(await loaded(lanes, source)))
    gpu = pixels(await generate(await loaded(lanes, source, **CUDA, options=EXACT)))
    assert (cpu - gpu).abs().max() <= 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("previews", [False, True])
async def test_no_step_waits_for_the_device(
    family: Family, previews: bool, miniatures: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = await loaded(lanes, miniature(family, miniatures), **CUDA)
    await generate(backend)
    at_step_end = StepEnd.__call__

    def watched(self: StepEnd, pipeline: Any, index: int, *others: Any) -> Any:
        told = at_step_end(self, pipeline, index, *others)
        if index in (1, 4):  # the first step may look up where it is, and the first preview fits its colours
            torch.cuda.set_sync_debug_mode("error" if index == 1 else "default")
        return told

    monkeypatch.setattr(StepEnd, "__call__", watched)
    steps: list[Step] = []
    wanted = request(num_inference_steps=6, previews=previews)
    made = await backend.generate(wanted, steps.append, None)
    assert made.pictures[0].error is None
    assert [step.index for step in steps] == [1, 2, 3, 4, 5, 6]
    assert all((step.preview is not None) is previews for step in steps)


@pytest.mark.parametrize(
    "options", [{"compile_part": "blocks"}, {}, {"cuda_graphs": True}], ids=["blocks", "whole", "graphs"]
)
async def test_a_compiled_denoiser_makes_the_same_pictures_and_is_compiled_once(
    options: dict[str, Any], miniatures: Path, lanes: Lanes
) -> None:
    source = miniature("sd15", miniatures)
    plain = pixels(await generate(await loaded(lanes, source, **CUDA, options=EXACT)))
    settings = {"compile": True, "row_buckets": (2, 4), **EXACT, **options}
    backend = await loaded(lanes, source, **CUDA, options=settings)
    with torch.compiler.set_stance("fail_on_recompile"):
        alone = pixels(await generate(backend))
        beside = pixels(await generate(backend, num_images_per_prompt=2))
    assert (plain - alone).abs().max() <= 2
    assert (plain - beside).abs().max() <= 2


async def test_attention_is_chosen_among_several_kernels(
    miniatures: Path, lanes: Lanes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "router.backends")
    fields = {**CUDA, "dtype": "bfloat16", "options": {"attention": "fastest"}}
    await loaded(lanes, miniature("sd15", miniatures), **fields)
    (told,) = [record.getMessage() for record in caplog.records if "attention of" in record.getMessage()]
    assert told.count(" ms") >= 2


async def test_decoding_on_its_own_stream_makes_the_same_pictures(miniatures: Path, lanes: Lanes) -> None:
    """Bit for bit, with pictures that end while others are denoised."""
    source = miniature("sd15", miniatures)
    made = []
    for options in ({}, {"decode_stream": True}):
        backend = await loaded(lanes, source, **CUDA, options=options)
        asked = [
            generate(backend, height=512, width=512, num_inference_steps=steps, seed=steps, reproducible=True)
            for steps in (1, 2, 3, 4, 6, 8)
        ]
        made.append([pixels(await each) for each in asked])
    assert all(torch.equal(plain, beside) for plain, beside in zip(*made, strict=True))


async def test_want_of_memory_in_a_tick_is_contained(miniatures: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, miniature("sd15", miniatures), **CUDA)
    unet = backend._gatherings["unet"]
    plain, refused = unet._function, []

    def greedy(**values: Any) -> Any:
        if values["sample"].shape[0] > 4:
            refused.append(values["sample"].shape[0])
            torch.empty(2**46, dtype=torch.uint8, device="cuda:0")
        return plain(**values)

    unet._function = greedy
    made = await generate(backend, num_images_per_prompt=8)
    assert refused
    assert [picture.error for picture in made.pictures] == [None] * 8
    assert (await generate(backend)).pictures[0].error is None


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
async def test_every_device_makes_the_same_picture(miniatures: Path, lanes: Lanes) -> None:
    source = miniature("sd15", miniatures)
    made = []
    for device in ("cuda:0", "cuda:1"):
        backend = await loaded(lanes, source, **{**CUDA, "device": device}, options=EXACT)
        made.append(pixels(await generate(backend, previews=True)))
    assert (made[0] - made[1]).abs().max() <= 2


async def test_what_runs_took_is_measured(miniatures: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, miniature("sd15", miniatures), **CUDA)
    made = await generate(backend)
    assert made.workspace is not None
    assert made.workspace.denoise is not None
    assert made.workspace.denoise.bytes > 0


POISONED = """
import asyncio, sys
from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.errors import DeviceLostError
from router.router import BackendRouter
import torch

def poison(**values):
    torch.zeros(1, device="cuda")[torch.tensor([9], device="cuda")].cpu()

async def main():
    instance = InstanceConfig(name="a", backend="diffusers", source=sys.argv[1], device="cuda:0")
    config = RouterConfig(models=(ModelConfig(name="m", instances=(instance,)),), default_model="m")
    fields = dict(prompt="a", height=64, width=64, num_inference_steps=1)
    async with BackendRouter(config) as router:
        await router.generate(**fields)
        router._catalogue.instances["a"]._backend._gatherings["unet"]._function = poison
        for _ in range(2):
            try:
                await router.generate(**fields)
            except DeviceLostError as exc:
                print("lost:", exc)

asyncio.run(main())
"""


def test_a_poisoned_context_is_told_and_left_alone(miniatures: Path) -> None:
    """In a process of its own: nothing mends it there."""
    command = [sys.executable, "-c", POISONED, str(miniature("sd15", miniatures))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.count("lost:") == 2, done.stderr[-2000:]
