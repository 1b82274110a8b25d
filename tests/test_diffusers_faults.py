"""What happens when a Diffusers instance fails, is cancelled, offloaded or unloaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from accelerate import cpu_offload_with_hook

from backends._gather import Gathering
from backends.diffusers import DiffusersBackend
from router.call import Call
from router.config import InstanceConfig
from router.errors import (
    DeviceLostError,
    GenerateError,
    InvalidRequestError,
    MemoryBudgetError,
)
from tests.diffusers_doubles import Lanes, generate, loaded, request


class Broken(Gathering):
    """The denoiser with a fault: `fault(rows)` may raise."""

    fault: Callable[[int], None] = staticmethod(lambda rows: None)
    runs: list[int]

    def __call__(self, calls: Sequence[Call]) -> Sequence[Any]:
        rows = sum(call.rows for call in calls)
        self.runs = [*getattr(self, "runs", []), rows]
        type(self).fault(rows)
        return super().__call__(calls)


@pytest.fixture
async def broken(model_folder: Path, lanes: Lanes) -> tuple[DiffusersBackend, type[Broken]]:
    backend = await loaded(lanes, model_folder)
    kind = type("ThisBroken", (Broken,), {})
    backend._gatherings["unet"].__class__ = kind
    return backend, kind


def runs_of(backend: DiffusersBackend) -> list[int]:
    return list(getattr(backend._gatherings["unet"], "runs", []))


async def test_out_of_memory_in_a_joined_run_is_halved_and_all_are_served(broken: Any) -> None:
    backend, kind = broken

    def too_many(rows: int) -> None:
        if rows > 4:
            raise MemoryError

    kind.fault = staticmethod(too_many)
    made = await asyncio.gather(*(generate(backend, seed=i) for i in range(6)))
    assert all(generated.pictures[0].image for generated in made)
    assert max(runs_of(backend)) > 4
    kind.fault = staticmethod(lambda rows: None)


async def test_out_of_memory_alone_is_a_sentence_and_the_next_request_is_served(broken: Any) -> None:
    backend, kind = broken

    def always(rows: int) -> None:
        raise MemoryError

    kind.fault = staticmethod(always)
    with pytest.raises(MemoryBudgetError, match="ask for a smaller picture"):
        await generate(backend)
    kind.fault = staticmethod(lambda rows: None)
    assert (await generate(backend)).pictures[0].image


async def test_a_failing_library_becomes_our_error_with_its_cause(broken: Any) -> None:
    backend, kind = broken

    def wrong(rows: int) -> None:
        raise ValueError("secret path")

    kind.fault = staticmethod(wrong)
    with pytest.raises(GenerateError, match="miniature failed with ValueError") as caught:
        await generate(backend)
    assert isinstance(caught.value.__cause__, ValueError)
    assert "secret" not in str(caught.value)
    assert caught.value.instance == "miniature"


async def test_one_picture_that_fails_does_not_lose_the_others(broken: Any) -> None:
    backend, kind = broken

    def second_alone(rows: int) -> None:
        if rows > 2:
            raise ValueError
        failures.append(rows)
        if len(failures) == 2:
            raise ValueError

    failures: list[int] = []
    kind.fault = staticmethod(second_alone)
    made = await generate(backend, num_images_per_prompt=3)
    assert [picture.error is None for picture in made.pictures] == [True, False, True]
    assert made.pictures[1].image is None


async def test_a_lost_device_refuses_what_comes(broken: Any) -> None:
    backend, kind = broken

    def poisoned(rows: int) -> None:
        raise DeviceLostError("The device failed; restart the process.")

    kind.fault = staticmethod(poisoned)
    with pytest.raises(DeviceLostError):
        await generate(backend)
    with pytest.raises(DeviceLostError, match="restart the process"):
        await generate(backend)


async def test_cancelling_stops_within_a_step_and_the_next_request_is_served(broken: Any) -> None:
    backend, _ = broken
    seen: list[Any] = []
    running = asyncio.ensure_future(backend.generate(request(num_inference_steps=900), seen.append, None))
    async with asyncio.timeout(20):
        while len(seen) < 3:  # noqa: ASYNC110 -- what is waited for happens on a thread
            await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    steps = len(runs_of(backend))
    assert steps < 900
    assert (await generate(backend)).pictures[0].image
    assert len(runs_of(backend)) == steps + 4


async def test_offloaded_modules_serve_one_task_at_a_time(model_folder: Path, lanes: Lanes) -> None:
    """With accelerate's hooks in place, as `offload` sets them on an accelerator."""

    class Offloaded(DiffusersBackend):
        def place(self, pipeline: Any) -> None:
            super().place(pipeline)
            self.one_at_a_time = True
            cpu_offload_with_hook(pipeline.unet, execution_device="cpu")

    plain = await generate(await loaded(lanes, model_folder))
    backend = Offloaded(
        InstanceConfig(name="offloaded", backend="diffusers", source=str(model_folder)), lanes
    )
    await backend.probe()
    await backend.load()
    before = backend.lane.statistics()
    made = await asyncio.gather(*(generate(backend, seed=1 + i) for i in range(3)))
    after = backend.lane.statistics()
    assert made[0].pictures[0].image == plain.pictures[0].image
    assert all(generated.ticks == made[0].ticks for generated in made)
    assert after.ticks - before.ticks == sum(generated.ticks for generated in made)


async def test_unloading_lets_the_modules_go_and_loading_brings_them_back(
    model_folder: Path, lanes: Lanes
) -> None:
    backend = await loaded(lanes, model_folder)
    first = await generate(backend)
    await backend.unload()
    assert not backend._pipelines
    await backend.load()
    assert (await generate(backend)).pictures[0].image == first.pictures[0].image


async def test_a_picture_withheld_by_the_safety_checker_is_an_error(model_folder: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, model_folder)
    shared = backend._pipelines["text-to-image"]
    shared.run_safety_checker = lambda image, device, dtype: (image, [True] * len(image))
    with pytest.raises(InvalidRequestError, match="safety checker withheld"):
        await generate(backend)
