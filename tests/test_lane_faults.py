"""Faults on a lane: who fails, who goes on, and that no failed run or ended task is kept alive."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from router.errors import DeviceLostError
from router.lane import Lane
from tests.lane_doubles import Doubling, steps, together


async def test_a_call_that_fails_fails_alone(lane: Lane) -> None:
    gather = Doubling()

    def poison(values: list[Any]) -> None:
        if 13 in values:
            raise ValueError("poison")

    gather.before = poison
    results = await together(
        lane, *[lambda value=value: steps(lane, gather, value, 2) for value in (1, 13, 3)]
    )
    assert results[0] == [2, 2]
    assert isinstance(results[1], ValueError)
    assert results[2] == [6, 6]


async def test_out_of_memory_halves_the_run_and_remembers_the_limit(lane: Lane) -> None:
    gather = Doubling()

    def at_most_two(values: list[Any]) -> None:
        if len(values) > 2:
            raise MemoryError

    gather.before = at_most_two
    results = await together(lane, *[lambda value=value: steps(lane, gather, value, 2) for value in range(4)])
    assert results == [[value * 2] * 2 for value in range(4)]
    assert [len(run) for run in gather.runs] == [4, 2, 2, 2, 2]


async def test_only_a_single_call_that_cannot_fit_fails_for_memory(lane: Lane) -> None:
    gather = Doubling()

    def too_large(values: list[Any]) -> None:
        if 9 in values:
            raise MemoryError

    gather.before = too_large
    results = await together(
        lane, *[lambda value=value: steps(lane, gather, value, 1) for value in (1, 9, 3)]
    )
    assert results[0] == [2]
    assert isinstance(results[1], MemoryError)
    assert results[2] == [6]


async def test_out_of_memory_holds_nothing_of_the_failed_run_while_it_tries_again(lane: Lane) -> None:
    class Buffer:
        pass

    held: list[weakref.ref[Buffer]] = []
    alive_at_retry: list[bool] = []
    gather = Doubling()

    def allocate(values: list[Any]) -> None:
        if len(values) > 1:
            buffer = Buffer()
            held.append(weakref.ref(buffer))
            raise MemoryError
        gc.collect()
        alive_at_retry.append(held[0]() is not None)

    gather.before = allocate
    await together(lane, *[lambda: steps(lane, gather, 1, 1)] * 2)
    assert alive_at_retry == [False, False]


async def test_an_ended_task_is_not_kept_alive(lane: Lane) -> None:
    class Buffer:
        pass

    made: list[weakref.ref[Buffer]] = []

    def returning() -> Buffer:
        buffer = Buffer()
        made.append(weakref.ref(buffer))
        return buffer

    def raising() -> None:
        buffer = returning()
        raise ValueError(buffer)

    await lane.run(returning)
    with pytest.raises(ValueError, match="Buffer"):
        await lane.run(raising)
    await asyncio.sleep(0)  # the loop's own wake-up still holds the answer
    gc.collect()
    assert [ref() for ref in made] == [None, None]


async def test_a_lost_device_ends_all_and_refuses_what_comes(lane: Lane) -> None:
    gather = Doubling()

    def illegal_access(values: list[Any]) -> None:
        raise DeviceLostError("Device 'test' failed; restart the process.")

    gather.before = illegal_access
    results = await together(
        lane, *[lambda: steps(lane, gather, 1, 1)] * 2, lambda: steps(lane, Doubling(), 1, 9)
    )
    assert [type(result) for result in results[:2]] == [DeviceLostError, DeviceLostError]
    assert isinstance(results[2], DeviceLostError)
    with pytest.raises(DeviceLostError, match="restart the process"):
        await lane.run(lambda: 1)
    assert "lost" in repr(lane)
