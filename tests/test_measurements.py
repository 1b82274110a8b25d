"""What runs have shown takes the place of the formula: in this process at once, and in the next one."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from router import measured
from router.config import InstanceConfig, MemoryConfig, ModelConfig, RouterConfig
from router.errors import NoRouteError
from router.footprint import Peak, Workspace
from router.measured import FILE_NAME
from router.router import BackendRouter
from tests.command_line import as_object, configure, triptych
from tests.configurations import read

PIXELS = 64 * 64
WEIGHTS = 1_000_000
HOLDS_UNDER = {"model": "abc", "device": "a card"}


def config_of(cache: Path | None, memory_bytes: int | None = None, **options: Any) -> RouterConfig:
    options = {"row_bytes_per_pixel": 500, "conditions": HOLDS_UNDER} | options
    instance = InstanceConfig(name="demo", backend="fake", options=options)
    return RouterConfig(
        models=(ModelConfig(name="demo", instances=(instance,)),),
        default_model="demo",
        memory=MemoryConfig(cache=cache),
        device_memory={} if memory_bytes is None else {"cpu": memory_bytes},
    )


async def row_bytes(router: BackendRouter) -> tuple[int, tuple[str, ...]]:
    await router.probe()
    found = router.instances()[0].capabilities
    assert found is not None
    return found.footprint.row_bytes_per_pixel, found.footprint.measured


async def test_a_run_corrects_the_formula_for_the_next_request(tmp_path: Path) -> None:
    async with BackendRouter(config_of(tmp_path, measured_bytes_per_pixel=90)) as router:
        assert await row_bytes(router) == (500, ())
        await router.generate(prompt="a")
        assert await row_bytes(router) == (90, ("denoise",))
        estimate = (await router.explain(prompt="a")).estimates["demo"]
        assert (estimate.denoise_bytes, estimate.measured) == (2 * PIXELS * 90, ("denoise",))


async def test_the_next_process_knows_it_before_it_runs(tmp_path: Path) -> None:
    async with BackendRouter(config_of(tmp_path, measured_bytes_per_pixel=90)) as router:
        await router.generate(prompt="a")
    async with BackendRouter(config_of(tmp_path)) as router:
        assert await row_bytes(router) == (90, ("denoise",))
        assert router._pool.slot("demo").instance.measurements.load_s is not None


async def test_what_comes_while_the_file_is_written_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions, learned = tuple(HOLDS_UNDER.items()), Workspace(denoise=Peak(1, PIXELS, 90 * PIXELS))
    begun, go_on, write = threading.Event(), threading.Event(), measured._write

    def slowly(*arguments: Any) -> Any:
        begun.set()
        assert go_on.wait(5)
        return write(*arguments)

    monkeypatch.setattr(measured, "_write", slowly)
    store = measured.MeasuredStore(tmp_path)
    store.keep(conditions, Workspace(), 1.0)
    assert await asyncio.to_thread(begun.wait, 5)
    store.keep(conditions, learned, 1.0)
    go_on.set()
    await store.close()
    known = await measured.MeasuredStore(tmp_path).find(conditions)
    assert known is not None
    assert known.workspace == learned


@pytest.mark.parametrize("change", [{"model": "abd"}, {"device": "another card"}, {"versions": "torch 3"}])
async def test_another_model_device_or_version_begins_with_the_formula(
    tmp_path: Path, change: dict[str, str]
) -> None:
    async with BackendRouter(config_of(tmp_path, measured_bytes_per_pixel=90)) as router:
        await router.generate(prompt="a")
    async with BackendRouter(config_of(tmp_path, conditions=HOLDS_UNDER | change)) as router:
        assert await row_bytes(router) == (500, ())


async def test_the_promise_follows_from_what_was_measured(tmp_path: Path) -> None:
    """Within a tenth of what the runs take; the formula alone would have refused it."""
    memory = WEIGHTS + 2 * PIXELS * 100
    measuring = config_of(tmp_path, measured_bytes_per_pixel=95)
    async with BackendRouter(measuring) as router:
        await router.generate(prompt="a")
    async with BackendRouter(config_of(tmp_path, memory)) as router:
        lease = []
        await router.generate(
            prompt="a", on_event=lambda event: lease.append(router.statistics().promised_bytes["cpu"])
        )
        peak = WEIGHTS + 2 * PIXELS * 95
        assert max(lease) == pytest.approx(peak, rel=0.1)
    async with BackendRouter(config_of(None, memory)) as router:
        with pytest.raises(NoRouteError, match="by formula"):
            await router.generate(prompt="a")


async def test_more_than_the_formula_said_counts_too(tmp_path: Path) -> None:
    memory = WEIGHTS + 2 * PIXELS * 600
    async with BackendRouter(config_of(tmp_path, memory, measured_bytes_per_pixel=700)) as router:
        await router.generate(prompt="a")
        with pytest.raises(NoRouteError, match=r"denoising 5.73 MB measured"):
            await router.generate(prompt="a")


async def test_a_damaged_file_is_a_note_of_the_instance(tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / FILE_NAME).write_text, "{")
    async with BackendRouter(config_of(tmp_path)) as router:
        (status,) = await router.probe()
        assert status.capabilities is not None
        assert "measured.json in the cache folder is not used" in status.capabilities.notes[-1]
        await router.generate(prompt="a")


async def test_what_is_no_news_is_not_written_again(tmp_path: Path) -> None:
    async with BackendRouter(config_of(tmp_path, measured_bytes_per_pixel=90)) as router:
        await router.generate(prompt="a")
        known = router._pool.slot("demo").instance.capabilities
        await router.generate(prompt="b")
        assert router._pool.slot("demo").instance.capabilities is known


def test_the_command_line_shows_what_is_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPTYCH_CACHE", str(folder / "cache"))
    options = 'options = { measured_bytes_per_pixel = 90, conditions = { model = "abc" } }\n'
    configure(folder, f'[[models.demo.instances]]\nbackend = "fake"\n{options}')
    before = triptych("explain", "a circle")
    assert "819 kB by formula" in before.stdout
    triptych("generate", "a circle", "-o", str(folder / "a.png"))
    after = triptych("explain", "a circle")
    assert "737 kB measured" in after.stdout
    said = as_object(triptych("explain", "a circle", "--json"))
    assert said["routes"][0]["estimates"]["demo/fake"] == {
        "weights_bytes": WEIGHTS,
        "denoise_bytes": 2 * PIXELS * 90,
        "decode_bytes": 0,
        "needed_bytes": WEIGHTS + 2 * PIXELS * 90,
        "budget_bytes": None,
        "measured": ["denoise"],
    }


def test_the_cache_folder_of_the_file_is_relative_to_it(tmp_path: Path) -> None:
    text = '[memory]\ncache = "kept"\nidle_unload_s = 300\n'
    config = read(tmp_path, text)
    assert config.memory == MemoryConfig(cache=tmp_path / "kept", idle_unload_s=300)
    config = read(tmp_path, text, idle_unload_s="5", cache="/var/cache/t")
    assert config.memory.cache == Path("/var/cache/t")
    assert config.memory.idle_unload_s == 5
    assert read(tmp_path, text, cache="here").memory.cache == tmp_path / "here"
