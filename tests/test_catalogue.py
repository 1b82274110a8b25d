"""The catalogue: one lane for each device, and how lanes on one CPU share its threads."""

from __future__ import annotations

import os

import pytest

from router import BackendRouter, InstanceConfig, ModelConfig, RouterConfig


def config_on(*devices: str) -> RouterConfig:
    instances = tuple(
        InstanceConfig(name=f"fake {number}", backend="fake", device=device)
        for number, device in enumerate(devices)
    )
    return RouterConfig(models=(ModelConfig(name="m", instances=instances),), default_model="m")


@pytest.mark.parametrize(
    ("devices", "threads"),
    [
        (["cpu"], [None]),
        (["cpu", "cpu"], [None]),
        (["cpu:0", "cpu:1"], [max(1, (os.cpu_count() or 1) // 2)] * 2),
        (["cpu", "cuda:0"], [None, None]),
    ],
)
async def test_lanes_on_one_cpu_split_its_threads(devices: list[str], threads: list[int | None]) -> None:
    async with BackendRouter(config_on(*devices)) as router:
        await router.probe()
        lanes = router._catalogue.lanes
        assert [lanes[device].threads for device in dict.fromkeys(devices)] == threads
        assert [lane.name for lane in router.statistics().lanes.values()] == list(dict.fromkeys(devices))
