"""Makes the pictures of test prompts through the router, many requests at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from router.config import SHIPPED_MODEL, InstanceConfig, Limits, ModelConfig, RouterConfig
from router.router import BackendRouter
from router.types import RawImage
from scripts.shapes_draw import Pixels
from scripts.shapes_prompts import Scene

SOURCE = f"shipped:{SHIPPED_MODEL}"
SIDE = 128
GUIDANCE = 3.0
CONCURRENCY = 16

Asked = Sequence[tuple[int, Scene]]
"""Seeds and scenes."""


def paint(
    asked: Asked,
    *,
    steps: int,
    backend: str = "diffusers",
    source: str = SOURCE,
    side: int = SIDE,
    guidance: float = GUIDANCE,
    scheduler: str | None = None,
) -> list[Pixels]:
    """One square picture of each scene, uint8 [side, side, 3]. Blocks until all are made."""
    settings = {
        "height": side,
        "width": side,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "scheduler": scheduler,
    }
    return asyncio.run(_paint(asked, settings, _config(backend, source, len(asked))))


async def _paint(asked: Asked, settings: Mapping[str, Any], config: RouterConfig) -> list[Pixels]:
    async with BackendRouter(config) as router:
        requests = [router.generate(prompt=scene.prompt, seed=seed, **settings) for seed, scene in asked]
        return [_pixels(result.images[0]) for result in await asyncio.gather(*requests)]


def _config(backend: str, source: str, queue: int) -> RouterConfig:
    """One instance of the shipped model, where all the requests may wait."""
    instance = InstanceConfig(name=f"{SHIPPED_MODEL}/{backend}", backend=backend, source=source)
    return RouterConfig(
        models=(ModelConfig(name=SHIPPED_MODEL, instances=(instance,)),),
        default_model=SHIPPED_MODEL,
        limits=Limits(concurrency=CONCURRENCY, queue=queue),
    )


def _pixels(image: RawImage) -> Pixels:
    return np.frombuffer(image.pixels, dtype=np.uint8).reshape(image.height, image.width, 3)
