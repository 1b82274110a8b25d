"""A device that is beyond repair in this process: who hears of it, who serves on, and how a service ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from backends._errors import is_device_lost, is_out_of_memory
from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.errors import DeviceLostError
from router.router import BackendRouter
from router.server import lost_device, run
from router.server.settings import ServerSettings, load_server_settings
from tests.command_line import triptych
from tests.diffusers_doubles import Lanes, make
from tests.doubles import Clock, Double, config_of
from tests.miniatures import miniature

POISONED = "CUDA error: an illegal memory access was encountered"
FIELDS: dict[str, Any] = {"prompt": "a circle", "height": 64, "width": 64, "num_inference_steps": 2}


def poisoned(*arguments: Any, **keywords: Any) -> Any:
    raise RuntimeError(POISONED)


def two_lanes(source: Path) -> RouterConfig:
    instances = tuple(
        InstanceConfig(name=f"on {device}", backend="diffusers", source=str(source), device=device)
        for device in ("cpu:0", "cpu:1")
    )
    return RouterConfig(models=(ModelConfig(name="m", instances=instances),), default_model="m")


async def test_a_poisoned_device_is_refused_from_then_on_and_the_other_serves(miniatures: Path) -> None:
    clock = Clock()
    async with BackendRouter(two_lanes(miniature("sd15", miniatures)), clock=clock) as router:
        assert (await router.generate(**FIELDS)).instance == "on cpu:0"
        backend: Any = router._catalogue.instances["on cpu:0"]._backend
        backend._gatherings["unet"]._function = poisoned
        result = await router.generate(**FIELDS)
        assert (result.instance, result.attempts[0].code) == ("on cpu:1", "device_lost")
        assert router.statistics().lanes["cpu:0"].lost
        clock.now += router.config.breaker.reset_s
        assert len((await router.generate(**FIELDS)).attempts) == 1
        await router.probe()
        route = await router.explain(**FIELDS)
    assert route.candidates == ("on cpu:1",)
    assert "restart the process" in route.rejections["on cpu:0"]


async def test_what_is_not_a_model_call_tells_the_lane_too(
    miniatures: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(lanes, miniature("sd15", miniatures))
    await backend.probe()
    monkeypatch.setattr(backend, "place", poisoned)
    with pytest.raises(DeviceLostError, match="miniature failed; restart the process"):
        await backend.load()
    with pytest.raises(DeviceLostError):
        lanes("cpu").check()


class Lost(Double):
    """Its device is gone as soon as the first probe has looked at it."""

    lanes: Lanes

    async def probe(self) -> Any:
        with pytest.raises(DeviceLostError):
            await self.lanes("gpu").run(self._lose)
        return self.capabilities

    def _lose(self) -> None:
        raise DeviceLostError("The device of a failed; restart the process.")


def serve(folder: Path, **settings: Any) -> None:
    double = Lost()

    def factory(config: InstanceConfig, lanes: Lanes) -> Double:
        double.lanes = lanes
        return double

    router = BackendRouter(config_of(double), resolve=lambda name: factory)
    run.run(router, ServerSettings(port=0, state=folder, notice_s=0, **settings))


def test_a_service_ends_for_its_supervisor_where_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_relieve_collector", lambda: None)
    with pytest.raises(DeviceLostError, match="restart the process"):
        serve(tmp_path, exit_on_lost_device=True)


async def test_it_serves_on_where_that_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ServerSettings().exit_on_lost_device is False
    monkeypatch.setattr(lost_device, "LOOK_S", 0)
    double = Double()
    async with BackendRouter(config_of(double), resolve=lambda name: lambda config, lanes: double) as router:
        waiting = asyncio.ensure_future(lost_device.device_lost(router))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        with pytest.raises(DeviceLostError):
            await router._catalogue._lane("gpu").run(Lost()._lose)
        assert "failed" in str(await waiting)


def test_the_setting_and_the_exit_code_are_told(tmp_path: Path) -> None:
    environ = {"TRIPTYCH_SERVER_EXIT_ON_LOST_DEVICE": "true"}
    assert load_server_settings(environ=environ, directory=tmp_path).exit_on_lost_device
    assert DeviceLostError.exit_code == 5
    assert "5 a device failed" in " ".join(triptych("serve", "--help").stdout.split())


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: device-side assert triggered",
        "CUDA error: uncorrectable NVLink error detected during the execution",
        "CUDA error: operation not supported on global/shared address space",
    ],
)
def test_what_cuda_says_of_a_device_that_is_lost_is_known(said: str) -> None:
    assert is_device_lost(RuntimeError(said))
    assert not is_out_of_memory(RuntimeError(said))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
