"""What several pictures of one request bring: six at once against six requests, as ratios of one run.

All through the router with the shipped model. "One by one" asks for a picture when the last one is there.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from router.config import SHIPPED_MODEL, InstanceConfig, ModelConfig, RouterConfig
from router.router import BackendRouter
from scripts.machine import machine

PICTURES, STEPS = 6, 8
PROMPT = "a red circle on a white background"

Way = Callable[[BackendRouter], Awaitable[object]]


def ways() -> dict[str, Way]:
    async def one_request(router: BackendRouter) -> None:
        await router.generate(**_asked(0), num_images_per_prompt=PICTURES)

    async def requests_at_once(router: BackendRouter) -> None:
        await asyncio.gather(*[router.generate(**_asked(seed)) for seed in range(PICTURES)])

    async def one_by_one(router: BackendRouter) -> None:
        for seed in range(PICTURES):
            await router.generate(**_asked(seed))

    return {
        "one request of six": one_request,
        "six requests at once": requests_at_once,
        "six one by one": one_by_one,
    }


def _asked(seed: int) -> dict[str, Any]:
    return {"prompt": PROMPT, "seed": seed, "num_inference_steps": STEPS}


async def measure(repeats: int) -> dict[str, Any]:
    """Seconds for six pictures, medians of runs in turns; ratios to six one by one."""
    instance = InstanceConfig(
        name="shapes", backend="diffusers", source=f"shipped:{SHIPPED_MODEL}", device="cpu"
    )
    model = ModelConfig(name=SHIPPED_MODEL, instances=(instance,))
    taken: dict[str, list[float]] = {name: [] for name in ways()}
    async with BackendRouter(RouterConfig(models=(model,), default_model=SHIPPED_MODEL)) as router:
        for way in ways().values():
            await way(router)
        for _ in range(repeats):
            for name, way in ways().items():
                started = time.perf_counter()
                await way(router)
                taken[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(each) for name, each in taken.items()}
    slowest = medians["six one by one"]
    return {
        "machine": machine(),
        "seconds": {name: round(each, 3) for name, each in medians.items()},
        "times as fast as one by one": {name: round(slowest / each, 2) for name, each in medians.items()},
    }
