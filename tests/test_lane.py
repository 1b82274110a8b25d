"""The lane: one thread that runs tasks off the loop, posts back to it and belongs to it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from router.call import Call
from router.lane import Lane
from tests.lane_doubles import Doubling, steps


async def test_runs_off_the_loop_and_returns_the_value(lane: Lane) -> None:
    assert await lane.run(threading.get_ident) != threading.get_ident()


async def test_an_error_of_the_task_reaches_its_caller(lane: Lane) -> None:
    with pytest.raises(ZeroDivisionError):
        await lane.run(lambda: 1 / 0)
    assert await lane.run(lambda: 1) == 1


async def test_each_task_sees_the_context_variables_of_its_caller(lane: Lane) -> None:
    name = contextvars.ContextVar("name", default="nobody")

    async def caller(value: str) -> str:
        name.set(value)
        return await lane.run(name.get)

    assert [await asyncio.create_task(caller(value)) for value in ("ann", "bob")] == ["ann", "bob"]
    assert await lane.run(name.get) == "nobody"


async def test_posts_arrive_on_the_loop_in_order_and_survive_one_that_raises(lane: Lane) -> None:
    seen: list[Any] = []
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, details: complaints.append(details))

    def note(what: Any) -> None:
        seen.append((what, threading.get_ident()))

    def task() -> str:
        for number in range(3):
            lane.post(note, number)
        lane.post(lambda: 1 / 0)
        lane.post(note, "after")
        return "ended"

    here = threading.get_ident()
    assert await lane.run(task) == "ended"
    assert seen == [(0, here), (1, here), (2, here), ("after", here)]
    assert len(complaints) == 1


async def test_outside_a_task_a_call_runs_at_once(lane: Lane) -> None:
    gather = Doubling()
    assert lane.call(Call("denoise", 1, gather, 21)) == 42
    assert lane.shared().ticks == 0


async def test_repr_tells_the_state(lane: Lane) -> None:
    await lane.run(lambda: steps(lane, Doubling(), 1, 3, rows=2))
    assert repr(lane) == "<Lane 'test' open, 0 running, 0 waiting, 3 ticks, 6 rows>"


def test_a_lane_of_another_loop_is_refused() -> None:
    async def make() -> Lane:
        return Lane("test")

    lane = asyncio.run(make())

    async def use() -> None:
        await lane.run(lambda: 1)

    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(use())
    lane.close()
