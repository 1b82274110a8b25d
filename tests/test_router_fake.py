"""The router with the shipped fake backend, on a real lane."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.errors import (
    GenerateError,
)
from router.router import BackendRouter
from router.types import (
    Completed,
    GenerateResult,
    Step,
)
from tests.doubles import (
    begin,
    running,
)


def fake_config(**options: Any) -> RouterConfig:
    instance = InstanceConfig(name="m/fake", backend="fake", options=options)
    return RouterConfig(models=(ModelConfig(name="m", instances=(instance,)),), default_model="m")


async def test_the_fake_serves_many_at_once_in_common_ticks() -> None:
    async with BackendRouter(fake_config(step_s=0.002)) as router:
        results = await asyncio.gather(
            *[router.generate(prompt=f"{index}", num_inference_steps=2 + index) for index in range(6)]
        )
        lane = router.statistics().lanes["cpu"]
    assert [result.ticks for result in results] == [2, 3, 4, 5, 6, 7]
    assert lane.ticks < 2 + 3 + 4 + 5 + 6 + 7
    assert running(router) == 0


async def test_the_fake_shows_every_step_on_the_way_to_its_colour_where_asked() -> None:
    async with BackendRouter(fake_config()) as router:
        events = [event async for event in router.stream(prompt="x", num_inference_steps=3, previews=True)]
        plain = [event async for event in router.stream(prompt="x", num_inference_steps=3)]
    *steps, completed = [event for event in events if isinstance(event, Step | Completed)]
    previews = [event.preview for event in steps if isinstance(event, Step)]
    assert len({preview.pixels for preview in previews if preview}) == 3
    assert isinstance(completed, Completed)
    assert previews[-1] is not None
    assert previews[-1].pixels[:3] == completed.result.images[0].pixels[:3]
    assert not any(event.preview for event in plain if isinstance(event, Step))


async def test_the_fake_stops_at_its_next_step_when_cancelled() -> None:
    async with BackendRouter(fake_config(step_s=0.005)) as router:
        task = begin(router, num_inference_steps=150)
        while not (lanes := router.statistics().lanes) or not lanes["cpu"].ticks:  # noqa: ASYNC110 -- a thread's
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        lane = router.statistics().lanes["cpu"]
        assert lane.running == 0
        assert lane.ticks < 100
        await router.generate(prompt="next")


async def test_a_planted_fault_fails_one_request_and_the_next_is_served() -> None:
    faults = [{"at": "step", "error": "generate_failed", "prompt": "bad"}]
    async with BackendRouter(fake_config(faults=faults)) as router:
        good, bad = await asyncio.gather(
            router.generate(prompt="good"), router.generate(prompt="bad"), return_exceptions=True
        )
        assert isinstance(good, GenerateResult)
        assert isinstance(bad, GenerateError)
        await router.generate(prompt="bad")


async def test_lanes_end_with_the_router() -> None:
    import threading

    async with BackendRouter(fake_config()) as router:
        await router.generate(prompt="a")
        assert "lane cpu" in {thread.name for thread in threading.enumerate()}
    assert "lane cpu" not in {thread.name for thread in threading.enumerate()}
