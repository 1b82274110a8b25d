"""Tasks of a lane that are to stop: by their callers, or because the lane closes."""

from __future__ import annotations

import asyncio
import threading

import pytest

from router.errors import BackendUnavailableError, RequestCancelledError
from router.lane import Lane
from tests.doubles import until
from tests.lane_doubles import Doubling, Gate, steps


async def test_cancelling_stops_the_task_at_its_next_call_and_waits_for_its_end(lane: Lane) -> None:
    gather = Doubling()
    ended: list[str] = []

    def endless() -> None:
        try:
            while True:
                steps(lane, gather, 1, 1)
        finally:
            ended.append("cleaned up")

    caller = asyncio.ensure_future(lane.run(endless))
    await until(lambda: len(gather.runs) > 3)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended == ["cleaned up"]
    assert lane.statistics().running == 0
    assert await lane.run(lambda: steps(lane, gather, 4, 1)) == [8]


async def test_cancelling_twice_still_waits_for_the_end(lane: Lane) -> None:
    in_call, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        in_call.set()
        go_on.wait(10)
        ended.set()

    caller = asyncio.ensure_future(lane.run(slow))
    await until(in_call.is_set)
    for _ in range(3):
        caller.cancel()
        await asyncio.sleep(0.01)
    assert not caller.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()


async def test_cancelling_a_task_that_has_not_started_never_starts_it(lane: Lane) -> None:
    started: list[int] = []
    gate = Gate(lane)
    caller = asyncio.ensure_future(lane.run(lambda: started.append(1)))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    await gate.open()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert started == []


async def test_a_task_can_ask_whether_it_is_to_stop(lane: Lane) -> None:
    def without_calls() -> None:
        while True:
            lane.check_stop()

    caller = asyncio.ensure_future(lane.run(without_calls))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_closing_ends_the_tasks_and_refuses_what_comes() -> None:
    lane, gather = Lane("test"), Doubling()

    def stubborn() -> None:
        for _ in range(3):
            try:
                while True:
                    steps(lane, gather, 1, 1)
            except RequestCancelledError:
                continue

    caller = asyncio.ensure_future(lane.run(stubborn))
    await until(lambda: bool(gather.runs))
    await asyncio.to_thread(lane.close)
    assert await caller is None
    with pytest.raises(BackendUnavailableError, match="closed"):
        await lane.run(lambda: 1)
