"""The rows of a tick follow from the memory that is free when it begins."""

from __future__ import annotations

from typing import Any

import torch

from backends._gather import Gathering
from backends._gauge import Gauge
from backends._headroom import headroom
from router.call import Call
from router.lane import Lane
from tests.lane_doubles import Doubling, together
from tests.test_gather import UNet2DConditionModel, call, rows

MEGABYTE = 10**6


class Meter:
    """Counts that a run takes a megabyte for each row."""

    def __init__(self) -> None:
        self.peak = 0

    def now(self) -> int:
        return 0

    def most(self) -> int:
        return self.peak

    def forget(self) -> None:
        self.peak = 0


async def test_a_tick_takes_the_rows_for_which_there_is_room(lane: Lane) -> None:
    gather, left = Doubling(row_limit=16), iter([4, 2, None])

    def one(value: int) -> Any:
        return lambda: lane.call(Call("denoise", 2, gather, value, room=lambda: next(left)))

    await together(lane, *(one(value) for value in range(1, 8)))
    assert gather.runs == [[1, 2], [3], [4, 5, 6, 7]]


async def test_a_single_call_runs_however_little_room_there_is(lane: Lane) -> None:
    gather = Doubling()
    await together(lane, *[lambda: lane.call(Call("denoise", 4, gather, 1, room=lambda: 1))] * 2)
    assert gather.runs == [[1], [1]]


def test_rows_follow_from_what_runs_took_and_what_is_free() -> None:
    meter, free = Meter(), [10 * MEGABYTE]
    gauge = Gauge(meter, cell_pixels=64)
    room = headroom(gauge, lambda: free[0])
    latents = torch.ones(2, 4, 8, 8)
    assert room(latents) is None

    def run(sample: torch.Tensor) -> None:
        meter.peak = len(sample) * MEGABYTE

    gauge.around(run, "denoise")(sample=latents)
    assert room(latents) == 9
    assert room(torch.ones(1, 4, 16, 8)) == 4
    free[0] = 0
    assert room(latents) == 1


async def test_the_module_asks_for_its_own_latents(lane: Lane) -> None:
    asked: list[tuple[int, ...]] = []

    def room(latents: torch.Tensor) -> int:
        asked.append(tuple(latents.shape))
        return 2

    model = UNet2DConditionModel()
    gathering = Gathering(model, row_limit=8, room=room)
    one = lambda: lane.call(call(gathering, **rows(1), timestep=1))  # noqa: E731
    await together(lane, one, one, one)
    assert model.rows == [2, 1]
    assert asked == [(1, 4, 2, 2)] * 2
