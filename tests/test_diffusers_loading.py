"""Loading a Diffusers instance that fails or is cancelled half-way, and letting one go: nothing is held."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from backends import _tasks
from router.errors import DeviceLostError, LoadError
from tests.diffusers_doubles import Lanes, generate, loaded, make


async def failure(lanes: Lanes, model_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> Any:
    """The modules and the error of a load that failed when half was made."""
    made: list[Any] = []

    def fail(kind: type, pipeline: Any) -> Any:
        made.append(weakref.ref(pipeline.unet))
        raise error

    monkeypatch.setattr(_tasks, "with_components_of", fail)
    backend = make(lanes, model_folder)
    await backend.probe()
    try:
        await backend.load()
    except LoadError as exc:
        gc.collect()
        return made[0], exc
    raise AssertionError


@pytest.mark.parametrize("error", [RuntimeError(), TypeError(), KeyError()])
async def test_a_load_that_fails_half_way_holds_nothing(
    model_folder: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    unet, raised = await failure(lanes, model_folder, monkeypatch, error)
    assert unet() is None
    assert f"could not load its model ({type(error).__name__})" in str(raised)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory.")])
async def test_too_little_memory_to_load_is_told_apart(
    model_folder: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    _, raised = await failure(lanes, model_folder, monkeypatch, error)
    assert "too little memory to load its model; choose a smaller `dtype`" in str(raised)


async def test_a_load_that_is_cancelled_holds_nothing(
    model_folder: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    placing, go_on = threading.Event(), threading.Event()

    def place(pipeline: Any) -> None:
        placing.set()
        go_on.wait(10)

    backend = make(lanes, model_folder)
    await backend.probe()
    monkeypatch.setattr(backend, "place", place)
    loading = asyncio.ensure_future(backend.load())
    await asyncio.to_thread(placing.wait, 10)
    loading.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert not backend._pipelines
    assert not backend._gatherings


async def test_what_a_lost_device_held_is_let_go(model_folder: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, model_folder)

    def lose() -> None:
        raise DeviceLostError("The device failed; restart the process.")

    with pytest.raises(DeviceLostError):
        await backend.lane.run(lose)
    await backend.unload()
    assert not backend._pipelines


async def test_models_that_are_loaded_at_once_are_read_one_after_the_other(
    model_folder: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The libraries replace functions of torch while they read; two at once would leave them replaced."""
    backends = [make(lanes, model_folder, device=device) for device in ("cpu:0", "cpu:1")]
    reading, most = [0], [0]
    for backend in backends:
        await backend.probe()
        read = backend.read

        def counted(read: Any = read) -> Any:
            reading[0] += 1
            most[0] = max(most[0], reading[0])
            try:
                return read()
            finally:
                reading[0] -= 1

        monkeypatch.setattr(backend, "read", counted)
    await asyncio.gather(*(backend.load() for backend in backends))
    assert most == [1]
    for backend in backends:
        await generate(backend, num_inference_steps=1)
