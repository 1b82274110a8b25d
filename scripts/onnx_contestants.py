"""The contestants of bench_onnx that run in our environment: plain Diffusers, and our backends.

python onnx_contestants.py diffusers|onnxruntime|openvino|openvino-bf16 FOLDER SIDE
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from router import BackendRouter, GenerateRequest, RawImage
from router.config import InstanceConfig, ModelConfig, RouterConfig
from scripts.contest import Run, compete, mixed, one_stream

OPTIONS: dict[str, dict[str, Any]] = {
    "onnxruntime": {},
    "openvino": {"runtime": "openvino"},
    "openvino-bf16": {"runtime": "openvino", "precision": "bfloat16"},
}


def plain_diffusers(folder: str, side: int) -> Run:
    import diffusers
    import torch

    torch.set_grad_enabled(False)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def run(workload: str) -> Any:
        pictures = []
        for request in requests(workload, side):
            generator = torch.Generator().manual_seed(request.pop("seed"))
            pictures.append(np.asarray(pipeline(**request, generator=generator).images[0]))
        return np.stack(pictures)

    run("one")
    return run


def requests(workload: str, side: int) -> list[dict[str, Any]]:
    return one_stream(side) if workload == "one" else mixed(side)


def our_backend(way: str, folder: str, side: int) -> Run:
    """The whole way of a request, `router.generate`, all requests of the workload at once."""
    instance = InstanceConfig(
        name="bench", backend="onnxruntime", source=folder, device="cpu", options=OPTIONS[way]
    )
    config = RouterConfig(models=(ModelConfig(name="bench", instances=(instance,)),), default_model="bench")
    loop = asyncio.new_event_loop()
    router = BackendRouter(config)

    async def all_at_once(workload: str) -> Sequence[RawImage]:
        asked = [GenerateRequest.of(**request) for request in requests(workload, side)]
        results = await asyncio.gather(*(router.generate(request) for request in asked))
        return [result.images[0] for result in results]

    def run(workload: str) -> Any:
        return np.stack([_array(image) for image in loop.run_until_complete(all_at_once(workload))])

    loop.run_until_complete(_entered(router.__aenter__))
    run("one")
    return run


async def _entered(enter: Callable[[], Awaitable[object]]) -> None:
    await enter()


def _array(image: RawImage) -> Any:
    return np.frombuffer(image.pixels, dtype=np.uint8).reshape(image.height, image.width, 3)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    way, folder, side = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if way == "diffusers":
        compete(lambda: plain_diffusers(folder, side))
    else:
        compete(lambda: our_backend(way, folder, side))
