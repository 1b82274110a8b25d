"""Model files that change or vanish while the model serves: loaded anew once, then a clear error."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from router.config import BreakerConfig, InstanceConfig, ModelConfig, RouterConfig
from router.errors import GenerateError, LoadError, RouterError
from router.model_files import ModelFiles
from router.router import BackendRouter

CHANGED = ("The files of demo/fake had changed; it was loaded anew.",)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model's folder, of which the fake backend reads nothing."""
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet/model.safetensors").write_bytes(b"weights")
    (folder / "model_index.json").write_text("{}")
    return folder


def config_of(source: Path, backend: str = "fake", **options: Any) -> RouterConfig:
    instance = InstanceConfig(name="demo/fake", backend=backend, source=str(source), options=options)
    models = (ModelConfig(name="demo", instances=(instance,)),)
    return RouterConfig(models=models, default_model="demo", breaker=BreakerConfig(reset_s=0.001))


def change(source: Path) -> None:
    (source / "unet/model.safetensors").write_bytes(b"other weights")


def calls(router: BackendRouter) -> dict[str, int]:
    (instance,) = router._catalogue.instances.values()
    counts: dict[str, int] = instance._backend.calls  # type: ignore[union-attr]
    return counts


def failing(prompt: str, times: int = 1, error: str = "generate_failed") -> dict[str, Any]:
    return {"at": "generate", "prompt": prompt, "times": times, "error": error}


# --- the look


async def test_what_has_changed_is_named(source: Path) -> None:
    files = ModelFiles(source)
    assert [await files.look(), await files.look()] == ["", ""]
    change(source)
    assert await files.look() == "unet/model.safetensors has changed"
    os.utime(source / "model_index.json", ns=(1, 1))
    assert await files.look() == "model_index.json has changed"
    (source / "config.json").touch()
    assert await files.look() == "config.json is new"
    (source / "unet/model.safetensors").unlink()
    assert await files.look() == "unet/model.safetensors is missing"
    assert await files.look() == "", "each change is told once"


async def test_a_checkpoint_is_one_file(source: Path) -> None:
    files = ModelFiles(source / "unet/model.safetensors")
    await files.begin()
    change(source)
    assert await files.look() == "model.safetensors has changed"
    (source / "unet/model.safetensors").unlink()
    assert await files.look() == "model.safetensors is missing"


@pytest.mark.parametrize("source", ["shipped:shapes", "owner/model", "http://localhost:8001", ""])
def test_what_is_elsewhere_is_not_looked_at(source: str) -> None:
    assert ModelFiles.of(source) is None


# --- what follows


async def test_a_failure_after_a_change_is_mended_by_loading_once(source: Path) -> None:
    config = config_of(source, faults=[failing("after", error="unknown")])
    async with BackendRouter(config) as router:
        assert (await router.generate(prompt="before")).notes == ()
        change(source)
        assert (await router.generate(prompt="good")).notes == (), "nothing failed, so nothing is done"
        result = await router.generate(prompt="after")
        counts = dict(calls(router))
        assert (await router.generate(prompt="next")).notes == ()
        assert router.records()[1].notes == CHANGED
    assert result.notes == CHANGED
    assert (counts["load"], counts["unload"], counts["probe"]) == (2, 1, 2)


async def test_it_is_tried_once_and_then_the_error_is_told(source: Path) -> None:
    async with BackendRouter(config_of(source, faults=[failing("bad", times=0)])) as router:
        await router.generate(prompt="good")
        change(source)
        with pytest.raises(GenerateError):
            await router.generate(prompt="bad")
        assert calls(router)["load"] == 2
        assert (await router.generate(prompt="good")).notes == ()
        assert calls(router)["load"] == 2


async def test_without_a_change_a_failure_loads_nothing(source: Path) -> None:
    async with BackendRouter(config_of(source, faults=[failing("bad")])) as router:
        await router.generate(prompt="good")
        with pytest.raises(GenerateError):
            await router.generate(prompt="bad")
        assert calls(router)["load"] == 1


async def test_requests_that_run_come_to_their_end_before_the_reload(source: Path) -> None:
    config = config_of(source, step_s=0.01, faults=[failing("bad", times=3)])
    async with BackendRouter(config) as router:
        await router.generate(prompt="good")
        change(source)
        slow = asyncio.create_task(router.generate(prompt="slow", num_inference_steps=20))
        await asyncio.sleep(0.02)
        results = await asyncio.gather(*[router.generate(prompt="bad", seed=seed) for seed in range(3)])
        assert slow.done(), "nothing is unloaded under a request that runs"
        assert (await slow).notes == ()
        assert [result.notes for result in results] == [CHANGED] * 3
        assert calls(router)["load"] == 2, "one reload serves all who wait for it"


async def test_a_reload_that_fails_is_a_clear_error_and_is_tried_again(source: Path) -> None:
    faults = [failing("bad"), {"at": "load", "error": "load_failed", "times": 1}]
    async with BackendRouter(config_of(source, faults=faults[:1])) as router:
        await router.generate(prompt="good")
        change(source)
        (instance,) = router._catalogue.instances.values()
        backend: Any = instance._backend
        backend.options.faults.append(type(backend.options.faults[0])(**faults[1]))
        with pytest.raises(LoadError, match="planted at 'load'"):
            await router.generate(prompt="bad")
        assert (await router.generate(prompt="good")).notes == CHANGED
        assert calls(router)["load"] == 3


async def test_a_change_before_the_load_is_probed_first(source: Path) -> None:
    """Another model may lie there now: what it can do is asked anew."""
    async with BackendRouter(config_of(source)) as router:
        await router.probe()
        change(source)
        await router.generate(prompt="good")
        assert (calls(router)["probe"], calls(router)["load"]) == (2, 1)


async def test_a_load_that_fails_while_files_change_is_tried_once_more(source: Path) -> None:
    config = config_of(source, load_s=0.05, faults=[{"at": "load", "error": "load_failed", "times": 1}])
    async with BackendRouter(config) as router:
        await router.probe()
        running = asyncio.create_task(router.generate(prompt="good"))
        await asyncio.sleep(0.02)
        change(source)
        assert (await running).notes == ()
        assert calls(router)["load"] == 2


# --- a real model


async def test_a_missing_file_is_named_and_once_it_is_back_the_model_serves(
    model_folder: Path, tmp_path: Path
) -> None:
    file = next((model_folder / "unet").glob("*.safetensors"))
    away = tmp_path / "away"
    async with BackendRouter(config_of(model_folder, "diffusers")) as router:
        await router.probe()
        await asyncio.to_thread(shutil.move, file, away)
        with pytest.raises(RouterError, match="has no safetensors file in 'unet'; copy it again") as caught:
            await router.generate(prompt="a circle", num_inference_steps=1)
        assert str(tmp_path) not in str(caught.value)
        await asyncio.to_thread(shutil.move, away, file)
        await asyncio.sleep(0.01)
        assert (await router.generate(prompt="a circle", num_inference_steps=1)).images
