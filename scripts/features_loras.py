"""What LoRAs cost: pictures per second with none, one for all and several in turn, as ratios of one run.

The LoRAs are random, of rank 16, on the attention of the UNet and of the text encoder. `wrapped` is a
request without LoRA on an instance that holds some: every layer they change is then peft's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backends import _shipped
from backends.diffusers import DiffusersBackend
from router.config import InstanceConfig
from router.lane import Lane
from router.request import GenerateRequest
from router.types import ignore_event
from scripts import mid_model
from scripts.machine import machine

RANK = 16
NAMES = ("a", "b")
WAYS = ("none", "wrapped", "one for all", "two in turn", "each its own weight")


def save_loras(model: Path, folder: Path) -> None:
    """Random ones called `a` and `b`, by Diffusers' own `save_lora_weights`."""
    pipeline = DiffusionPipeline.from_pretrained(model, use_safetensors=True, local_files_only=True)
    targets = {"unet": ["to_q", "to_k", "to_v", "to_out.0"], "text_encoder": ["q_proj", "v_proj"]}
    for name in NAMES:
        layers = {}
        for component, modules in targets.items():
            module = getattr(pipeline, component)
            module.add_adapter(
                LoraConfig(r=RANK, target_modules=modules, init_lora_weights="gaussian"), adapter_name=name
            )
            layers[f"{component}_lora_layers"] = get_peft_model_state_dict(module, adapter_name=name)
        type(pipeline).save_lora_weights(folder, weight_name=f"{name}.safetensors", **layers)


def requests(way: str, count: int, side: int, steps: int) -> list[GenerateRequest]:
    loras: dict[str, Any] = {
        "one for all": lambda index: [{"name": "a"}],
        "two in turn": lambda index: [{"name": NAMES[index % 2]}],
        "each its own weight": lambda index: [{"name": "a", "weight": 1 + index / 100}],
    }
    return [
        GenerateRequest.of(
            prompt=f"a red circle number {index}",
            height=side,
            width=side,
            num_inference_steps=steps,
            guidance_scale=3.0,
            seed=index,
            loras=loras.get(way, lambda index: [])(index),
        )
        for index in range(count)
    ]


async def pictures_per_second(model: Path, count: int, side: int, steps: int, repeats: int) -> dict[str, Any]:
    lane = Lane("cpu", threads=torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        await asyncio.to_thread(save_loras, model, Path(folder))
        plain = await _loaded(lane, model)
        able = await _loaded(lane, model, folder)
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for way in WAYS:  # loads, and warms up
            await _all(plain if way == "none" else able, requests(way, 4, side, 2))
        for _ in range(repeats):
            for way in WAYS:
                asked = requests(way, count, side, steps)
                started = time.perf_counter()
                await _all(plain if way == "none" else able, asked)
                seconds[way].append((time.perf_counter() - started) / count)
        found = able.adapters.statistics()
        switch_s = await lane.run(lambda: _switch_s(able))
        await plain.unload()
        await able.unload()
    lane.close()
    return {
        "ratios to none": {way: round(_ratio(seconds, way), 3) for way in WAYS},
        "seconds a picture": {way: [round(each, 4) for each in runs] for way, runs in seconds.items()},
        "load_s each": round(found.load_s / found.loads, 4),
        "bytes held": found.size_bytes,
        "seconds a switch of the UNet": round(switch_s, 6),
    }


def _ratio(seconds: dict[str, list[float]], way: str) -> float:
    """Of pictures per second; medians of all runs."""
    return statistics.median(seconds["none"]) / statistics.median(seconds[way])


def _switch_s(backend: DiffusersBackend, times: int = 50) -> float:
    unet = backend.adapters.module("unet")
    started = time.perf_counter()
    for index in range(times):
        unet.apply(((NAMES[index % 2], 1.0),))
    return (time.perf_counter() - started) / times


async def _loaded(lane: Lane, model: Path, loras: str = "") -> DiffusersBackend:
    instance = InstanceConfig(
        name="measured",
        backend="diffusers",
        source=str(model),
        device="cpu",
        lora_folders=(loras,) if loras else (),
    )
    backend = DiffusersBackend(instance, lambda device: lane)
    await backend.probe()
    await backend.load()
    return backend


async def _all(backend: DiffusersBackend, asked: list[GenerateRequest]) -> None:
    await asyncio.gather(*(backend.generate(request, ignore_event, None) for request in asked))


async def measure(repeats: int) -> dict[str, Any]:
    shapes = Path(_shipped.resolve("shipped:shapes"))
    found: dict[str, Any] = {"machine": machine(), "repeats": repeats}
    found["shipped model, 128x128, 20 steps, 8 at once"] = await pictures_per_second(
        shapes, 8, 128, 20, repeats
    )
    with tempfile.TemporaryDirectory() as folder:
        await asyncio.to_thread(mid_model.build, Path(folder) / "mid")
        found["78 M denoiser, 128x128, 4 steps, 4 at once"] = await pictures_per_second(
            Path(folder) / "mid", 4, 128, 4, max(1, repeats // 2)
        )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    print(json.dumps(asyncio.run(measure(parser.parse_args().repeats)), indent=2))
