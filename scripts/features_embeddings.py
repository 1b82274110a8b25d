"""What remembering text encodings would bring: a trial, of which nothing is in production.

The text encoders' share of a picture in plain Diffusers, and pictures of an instance with and without a
memory of every encoding. docs/prompts.md tells what was found and decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextConfig, CLIPTextModel

from backends import _pipeline, _shipped
from backends._stand_in import StandIn
from backends.diffusers import DiffusersBackend
from router.config import InstanceConfig
from router.lane import Lane
from router.request import GenerateRequest
from router.types import ignore_event
from scripts import mid_model
from scripts.machine import machine

LARGE_WIDTH = 768
"""CLIP ViT-L/14, as in Stable Diffusion 1.5: 12 layers, 123 million parameters."""


class Remembering(StandIn):
    """The trial: a text encoder whose answers to equal tokens are kept, all of them."""

    kept: dict[Any, Any] = {}  # noqa: RUF012 -- one for the run
    asked = hits = 0

    def _gathered(self, *args: Any, **kwargs: Any) -> Any:
        if type(self._module).__name__ not in ("CLIPTextModel", "CLIPTextModelWithProjection"):
            return super()._gathered(*args, **kwargs)
        key = (id(self._module), args[0].numpy().tobytes(), *sorted(kwargs))
        Remembering.asked += 1
        if key in self.kept:
            Remembering.hits += 1
            return self.kept[key]
        self.kept[key] = super()._gathered(*args, **kwargs)
        return self.kept[key]


@contextlib.contextmanager
def remembering(on: bool) -> Iterator[None]:
    Remembering.kept.clear()
    plain, _pipeline.StandIn = _pipeline.StandIn, Remembering if on else _pipeline.StandIn  # type: ignore[misc]
    try:
        yield
    finally:
        _pipeline.StandIn = plain  # type: ignore[misc]


def requests(count: int, side: int, steps: int, *, equal: bool) -> list[GenerateRequest]:
    """Guided, so that each picture has a negative prompt too: the same, empty one for all."""
    return [
        GenerateRequest.of(
            prompt="a red circle on a blue background" if equal else f"a red circle number {index}",
            height=side,
            width=side,
            num_inference_steps=steps,
            guidance_scale=3.0,
            seed=index,
        )
        for index in range(count)
    ]


async def embeddings(repeats: int, folder: Path, side: int, count: int, at_once: int) -> list[dict[str, Any]]:
    lane = Lane("cpu", threads=torch.get_num_threads())
    instance = InstanceConfig(name="measured", backend="diffusers", source=str(folder), device="cpu")
    backend = DiffusersBackend(instance, lambda device: lane)
    await backend.probe()
    await backend.load()
    rows = []
    for steps in (20, 4):
        for equal in (True, False):
            asked = requests(count, side, steps, equal=equal)
            seconds: dict[bool, list[float]] = {False: [], True: []}
            await _all(backend, asked[:at_once], at_once)
            for _ in range(repeats):
                for on in (False, True):
                    with remembering(on):
                        started = time.perf_counter()
                        await _all(backend, asked, at_once)
                        seconds[on].append((time.perf_counter() - started) / count)
            rows.append(_row(f"{steps} steps, {'equal' if equal else 'other'} prompts", seconds))
    await backend.unload()
    lane.close()
    return rows


async def _all(backend: DiffusersBackend, asked: Sequence[GenerateRequest], at_once: int) -> None:
    turn = asyncio.Semaphore(at_once)

    async def one(request: GenerateRequest) -> None:
        async with turn:
            await backend.generate(request, ignore_event, None)

    await asyncio.gather(*map(one, asked))


def _row(what: str, seconds: dict[bool, list[float]]) -> dict[str, Any]:
    plain, kept = (statistics.median(seconds[on]) for on in (False, True))
    runs = {("kept" if on else "plain"): [round(each, 5) for each in found] for on, found in seconds.items()}
    return {"what": what, "plain_s": plain, "kept_s": kept, "ratio": plain / kept, "runs": runs}


def _large(folder: Path) -> Path:
    """The 78-million-parameter model with the text encoder of Stable Diffusion 1.5."""
    mid_model.TEXT_WIDTH = LARGE_WIDTH
    mid_model._text_encoder = lambda: CLIPTextModel(
        CLIPTextConfig(
            vocab_size=mid_model.CLIP_VOCABULARY,
            hidden_size=LARGE_WIDTH,
            intermediate_size=4 * LARGE_WIDTH,
            num_hidden_layers=12,
            num_attention_heads=12,
            bos_token_id=mid_model.CLIP_START,
            eos_token_id=mid_model.CLIP_END,
            pad_token_id=mid_model.CLIP_END,
        )
    )
    mid_model.build(folder / "large")
    return folder / "large"


@torch.no_grad()
def shares(folder: Path, side: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds of a guided picture's parts in plain Diffusers, and what part of it its texts are."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    text = _seconds(lambda: pipeline.encode_prompt("a red circle", "cpu", 1, True), repeats)
    latents, states = torch.randn(2, 4, side // 8, side // 8), pipeline.encode_prompt("a", "cpu", 2, False)[0]
    step = _seconds(lambda: pipeline.unet(latents, 500, states), repeats)
    decode = _seconds(lambda: pipeline.vae.decode(latents[:1]), repeats)
    return [
        {
            "what": f"{steps} steps",
            "text_s": text,
            "step_s": step,
            "decode_s": decode,
            "texts_share": text / (text + steps * step + decode),
        }
        for steps in (20, 4)
    ]


def _seconds(work: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


async def measure(repeats: int) -> dict[str, Any]:
    shapes = Path(_shipped.resolve("shipped:shapes"))
    with tempfile.TemporaryDirectory() as folder:
        large = await asyncio.to_thread(_large, Path(folder))
        large_shares = await asyncio.to_thread(shares, large, 256, repeats)
    return {
        "machine": machine(),
        "shares, shipped model": await asyncio.to_thread(shares, shapes, 128, repeats),
        "shares, 78 M denoiser at 256x256 with CLIP ViT-L/14": large_shares,
        "kept, shipped model, 8 at a time": await embeddings(repeats, shapes, 128, 8, 8),
    }
