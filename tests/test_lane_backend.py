"""What backends on a lane share: pictures that fail hold no memory, and a request ends with its last one."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from backends._lane import LaneBackend, Report
from router.call import Call
from router.errors import DeviceLostError, GenerateError
from router.lane import Lane
from router.request import GenerateRequest
from router.types import RawImage, ignore_event
from tests.lane_doubles import Doubling


class Buffer:
    """Stands for the tensors in the frames of a failing pipeline."""


class Failing(LaneBackend):
    """Each picture runs the function."""

    name = "failing"

    def __init__(self, lane: Lane, function: Callable[[int], None]) -> None:
        self.lane = lane
        self.function = function

    def picture(self, request: GenerateRequest, seed: int, report: Report) -> RawImage:
        self.function(seed)
        return RawImage(1, 1, b"rgb")


@pytest.fixture
def _no_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def generate(backend: LaneBackend, count: int = 1) -> None:
    request = GenerateRequest.of(prompt="a red circle", seed=0, num_images_per_prompt=count)
    await backend.generate(request, ignore_event, None)


@pytest.mark.usefixtures("_no_gc")
@pytest.mark.parametrize("error", [ValueError, MemoryError, GenerateError])
async def test_the_error_of_a_picture_holds_nothing_that_its_frames_held(
    lane: Lane, error: type[Exception]
) -> None:
    held: list[weakref.ref[Buffer]] = []

    def fail(seed: int) -> None:
        buffer = Buffer()
        held.append(weakref.ref(buffer))
        try:
            raise KeyError
        except KeyError:
            raise error from None

    kept = None
    try:
        await generate(Failing(lane, fail))
    except Exception as exc:  # noqa: BLE001 -- whichever
        kept = exc
    assert kept is not None
    assert held[0]() is None


async def test_a_request_ends_only_when_all_its_pictures_have_ended(lane: Lane) -> None:
    ended = threading.Event()
    both = Doubling()

    def work(seed: int) -> None:
        if seed == 0:
            lane.call(Call("other", 1, both, 1))
            raise DeviceLostError("The device failed; restart the process.")
        try:
            lane.call(Call("one", 1, both, 1))
            lane.call(Call("two", 1, both, 1))
        finally:
            threading.Event().wait(0.1)
            ended.set()

    with pytest.raises(DeviceLostError):
        await asyncio.wait_for(generate(Failing(lane, work), 2), 5)
    assert ended.is_set()
