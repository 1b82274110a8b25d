"""What a GPU is not waited for: previews come a step later, pictures by and by, off the lane."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backends import _pipeline
from backends._on_its_way import FromCuda, Here, as_pixels, begin
from backends._steps import StepEnd
from router.errors import DeviceLostError, GenerateError
from router.types import RawImage
from tests.diffusers_doubles import Lanes, generate, loaded, request
from tests.doubles import until
from tests.miniatures import miniature

PIXELS = torch.arange(24, dtype=torch.uint8).reshape(2, 4, 3)
IMAGE = RawImage(2, 4, bytes(range(24)))


class Copied:
    """A CUDA event that the test sets."""

    def __init__(self, error: Exception | None = None) -> None:
        self.done = threading.Event()
        self.error = error

    def query(self) -> bool:
        return self.done.is_set()

    def synchronize(self) -> None:
        self.done.wait(10)
        if self.error is not None:
            raise self.error


def test_pixels_of_the_cpu_are_here() -> None:
    assert begin(PIXELS) == Here(IMAGE)


def test_pixels_of_a_gpu_are_there_when_they_are_copied() -> None:
    copied = Copied()
    coming = FromCuda(PIXELS, copied)
    assert not coming.is_here
    copied.done.set()
    assert coming.is_here
    assert coming.take() == IMAGE


def test_pixels_are_rounded_as_diffusers_does() -> None:
    picture = torch.tensor([0.0, 0.5, 1.0, 0.0019, 0.0020, 0.25]).reshape(3, 1, 2)
    assert as_pixels(picture)[0, :, 0].tolist() == [0, 128]
    assert as_pixels(picture).shape == (1, 2, 3)


def end_of(step: int, steps: StepEnd) -> None:
    pipeline = SimpleNamespace(scheduler=SimpleNamespace(order=1, timesteps=range(3)))
    steps(pipeline, step, None, {"latents": torch.ones(1)})


def test_a_step_is_told_when_its_preview_has_come() -> None:
    told: list[Any] = []
    coming = [FromCuda(PIXELS, Copied()) for _ in range(3)]
    previews = iter(coming)
    steps = StepEnd(lambda: None, lambda *step: told.append(step), lambda *given: next(previews))
    end_of(0, steps)
    assert told == []
    coming[0].copied.done.set()
    end_of(1, steps)
    assert told == [(1, 3, IMAGE)]
    coming[1].copied.done.set()
    coming[2].copied.done.set()
    end_of(2, steps)
    steps.flush()
    assert told == [(1, 3, IMAGE), (2, 3, IMAGE), (3, 3, IMAGE)]


def test_a_step_without_a_preview_is_told_at_once() -> None:
    told: list[Any] = []
    steps = StepEnd(lambda: None, lambda *step: told.append(step), None)
    end_of(0, steps)
    assert told == [(1, 3, None)]


async def test_the_lane_goes_on_while_a_picture_is_copied(
    miniatures: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = await loaded(lanes, miniature("sd15", miniatures))
    copied = Copied()
    monkeypatch.setattr(_pipeline, "only_image", lambda output: FromCuda(PIXELS, copied))
    asked = [generate(backend, num_inference_steps=1, seed=seed) for seed in (1, 2)]
    await until(lambda: backend.lane.statistics().ticks > 2 and not backend.lane.statistics().running)
    assert not any(each.done() for each in asked)
    copied.done.set()
    assert [(await each).pictures[0].image for each in asked] == [IMAGE, IMAGE]


async def test_neither_the_last_preview_nor_latents_hold_up_the_lane(
    miniatures: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are waited for beside the picture, and told in their order."""
    backend = await loaded(lanes, miniature("sd15", miniatures))
    copied, told = Copied(), list[Any]()
    monkeypatch.setattr(_pipeline, "only_image", lambda output: FromCuda(PIXELS, copied))
    monkeypatch.setattr(backend, "_preview", lambda *given: FromCuda(PIXELS, copied))
    wanted = request(num_inference_steps=1, previews=True, latents=True)
    asked = asyncio.ensure_future(backend.generate(wanted, told.append, None))
    await until(lambda: backend.lane.statistics().ticks > 2 and not backend.lane.statistics().running)
    assert (asked.done(), told) == (False, [])
    copied.done.set()
    (picture,) = (await asked).pictures
    assert (picture.image, bool(picture.latents), bool(picture.fingerprint)) == (IMAGE, True, True)
    assert [(step.index, step.preview) for step in told] == [(1, IMAGE)]


async def test_who_gives_up_is_let_go_when_the_device_has_done_with_the_picture(
    miniatures: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was promised for it is given back then, and not sooner."""
    backend = await loaded(lanes, miniature("sd15", miniatures))
    copied, begun = Copied(), threading.Event()
    take = FromCuda.take

    def taking(self: FromCuda) -> RawImage:
        begun.set()
        return take(self)

    monkeypatch.setattr(FromCuda, "take", taking)
    monkeypatch.setattr(_pipeline, "only_image", lambda output: FromCuda(PIXELS, copied))
    asked = generate(backend, num_inference_steps=1)
    await until(begun.is_set)
    asked.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not asked.done()
    copied.done.set()
    with pytest.raises(asyncio.CancelledError):
        await asked


@pytest.mark.parametrize(
    ("error", "raised", "lost"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), DeviceLostError, True),
        (RuntimeError("something else"), GenerateError, False),
        (ValueError("of a library that makes files"), GenerateError, False),
    ],
)
async def test_what_is_wrong_may_show_when_a_picture_is_waited_for(
    error: Exception, raised: type[Exception], lost: bool, miniatures: Path, lanes: Lanes, monkeypatch: Any
) -> None:
    backend = await loaded(lanes, miniature("sd15", miniatures))
    copied = Copied(error)
    copied.done.set()
    monkeypatch.setattr(FromCuda, "is_here", False)
    monkeypatch.setattr(_pipeline, "only_image", lambda output: FromCuda(PIXELS, copied))
    with pytest.raises(raised):
        await generate(backend, num_inference_steps=1)
    assert bool(backend.lane.statistics().lost) is lost
