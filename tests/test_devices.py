"""One instance on several devices: what the configuration makes of it, and two lanes that share the work."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import torch

from backends._device import prepare_thread
from router.config import ModelConfig
from router.router import BackendRouter
from tests.configurations import instances, names, read, refused
from tests.miniatures import miniature

TWO = """
[[models.photo.instances]]
{name}backend = "diffusers"
source = "{source}"
device = ["cpu:0", "cpu:1"]
"""


def devices(config: ModelConfig) -> list[str]:
    return [instance.device for instance in config.instances]


def test_a_list_of_devices_is_an_instance_on_each(tmp_path: Path) -> None:
    config = read(tmp_path, TWO.format(source="here", name='name = "mine"\n'))
    assert instances(config, "photo") == ["mine@cpu:0", "mine@cpu:1"]
    assert devices(config.models[0]) == ["cpu:0", "cpu:1"]
    config = read(tmp_path, TWO.format(source="here", name=""))
    assert instances(config, "photo") == ["photo/diffusers", "photo/diffusers-2"]


def test_a_lane_has_its_device_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else events, pinned memory and generated kernels of the second device would be the first one's."""
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_grad_enabled", lambda enabled: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for device in ("cuda:1", "cpu:1", "cuda", "test"):
        prepare_thread(None, device)
    assert chosen == [1, 0]


def test_the_least_predicted_completion_chooses_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    text = TWO.format(source="here", name="")
    assert read(tmp_path, text).models[0].policy == "fastest"
    assert read(tmp_path, f'[models.photo]\npolicy = "order"\n{text}').models[0].policy == "order"
    assert read(tmp_path, text.replace('["cpu:0", "cpu:1"]', '"cpu:0"')).models[0].policy == "order"


def test_the_variable_takes_a_list_for_every_instance(tmp_path: Path) -> None:
    config = read(tmp_path, model="someone/sketch", device="cuda:0, cuda:1,cuda:0")
    assert devices(config.models[0]) == ["cuda:0", "cuda:1"]
    assert config.models[0].policy == "fastest"
    assert names(config) == ["someone/sketch"]


def test_from_python_too() -> None:
    made = ModelConfig.model_validate(
        {"name": "m", "instances": [{"backend": "fake", "device": ["cuda:1", "cuda:0"]}, {"backend": "fake"}]}
    )
    assert devices(made) == ["cuda:1", "cuda:0", "auto"]


def test_what_is_no_list_of_devices_is_refused(tmp_path: Path) -> None:
    text = TWO.format(source="here", name="")
    twice = refused(tmp_path, text.replace("cpu:1", "cpu:0"))
    assert "name each device once" in twice
    assert "`models.photo`" in twice
    assert "name each device once" in refused(tmp_path, text.replace('["cpu:0", "cpu:1"]', "[]"))
    assert "device" in refused(tmp_path, text.replace('"cpu:1"', "1"))


async def test_two_lanes_share_the_work_and_make_the_same_picture(miniatures: Path, tmp_path: Path) -> None:
    text = TWO.format(source=miniature("sd15", miniatures), name="")
    config = await asyncio.to_thread(read, tmp_path, text)
    async with BackendRouter(config) as router:
        await router.probe()
        asked = [
            router.generate(prompt="a circle", height=64, width=64, num_inference_steps=2, seed=seed)
            for seed in (1, 2, 1, 2)
        ]
        results = await asyncio.gather(*asked)
        lanes = router.statistics().lanes
        threads = {router._catalogue.lanes[name].threads for name in lanes}
    assert (
        sorted(result.instance for result in results) == ["photo/diffusers"] * 2 + ["photo/diffusers-2"] * 2
    )
    assert set(lanes) == {"cpu:0", "cpu:1"}
    assert all(lane.ticks for lane in lanes.values())
    assert threads == {max(1, (os.cpu_count() or 1) // 2)}
    by_seed = {result.seeds: result.images[0].pixels for result in results}
    assert all(by_seed[result.seeds] == result.images[0].pixels for result in results)
