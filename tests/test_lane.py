"""The lane: one thread, many tasks, common ticks. No torch here: calls carry numbers."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from router.call import Call
from router.errors import BackendUnavailableError, DeviceLostError, RequestCancelledError
from router.lane import Lane


class Doubling:
    """A Gather that doubles numbers and remembers which calls shared a run."""

    def __init__(self, row_limit: int = 16) -> None:
        self.row_limit = row_limit
        self.runs: list[list[Any]] = []
        self.threads: set[int] = set()
        self.before: Callable[[list[Any]], None] = lambda values: None

    def __call__(self, calls: Sequence[Call]) -> Sequence[Any]:
        values = [call.arguments for call in calls]
        self.threads.add(threading.get_ident())
        self.runs.append(values)
        self.before(values)
        return [value * 2 for value in values]


@pytest.fixture
async def lane() -> AsyncIterator[Lane]:
    lane = Lane("test")
    yield lane
    await asyncio.to_thread(lane.close)


class Gate:
    """A task that occupies the lane until opened, so that others arrive together behind it."""

    def __init__(self, lane: Lane) -> None:
        self._event = threading.Event()
        self._task = asyncio.ensure_future(lane.run(lambda: self._event.wait(10)))

    async def open(self) -> None:
        await asyncio.sleep(0)
        self._event.set()
        await self._task


def steps(lane: Lane, gather: Doubling, value: int, count: int, rows: int = 1) -> list[int]:
    """A pipeline in miniature: `count` calls, one after the other."""
    return [lane.call(Call("denoise", rows, gather, value)) for _ in range(count)]


async def together(lane: Lane, *functions: Callable[[], Any]) -> list[Any]:
    """Run the functions as tasks that all arrive before the first tick."""
    gate = Gate(lane)
    running = [asyncio.ensure_future(lane.run(function)) for function in functions]
    await gate.open()
    return await asyncio.gather(*running, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 -- what is waited for happens on a thread
            await asyncio.sleep(0.001)


async def test_runs_off_the_loop_and_returns_the_value(lane: Lane) -> None:
    assert await lane.run(threading.get_ident) != threading.get_ident()


async def test_an_error_of_the_task_reaches_its_caller(lane: Lane) -> None:
    with pytest.raises(ZeroDivisionError):
        await lane.run(lambda: 1 / 0)
    assert await lane.run(lambda: 1) == 1


async def test_calls_of_one_key_share_ticks_whatever_their_step_counts(lane: Lane) -> None:
    gather = Doubling()
    results = await together(
        lane,
        lambda: steps(lane, gather, 1, 3),
        lambda: steps(lane, gather, 2, 1),
        lambda: steps(lane, gather, 3, 2),
    )
    assert results == [[2, 2, 2], [4], [6, 6]]
    assert gather.runs == [[1, 2, 3], [1, 3], [1]]
    assert len(gather.threads) == 1


async def test_calls_of_other_keys_do_not_share(lane: Lane) -> None:
    gather = Doubling()
    results = await together(
        lane,
        lambda: lane.call(Call("64x64", 1, gather, 1)),
        lambda: lane.call(Call("32x32", 1, gather, 2)),
        lambda: lane.call(Call("64x64", 1, gather, 3)),
    )
    assert results == [2, 4, 6]
    assert gather.runs == [[1, 3], [2]]


async def test_the_oldest_call_goes_first_even_when_its_group_is_small(lane: Lane) -> None:
    gather = Doubling()

    def odd_size() -> list[Any]:
        return [lane.call(Call("odd", 1, gather, "odd")) for _ in range(2)]

    await together(lane, odd_size, *[lambda: steps(lane, gather, 1, 3)] * 3)
    assert [len(run) for run in gather.runs] == [1, 3, 1, 3, 3]


async def test_the_row_limit_bounds_a_tick(lane: Lane) -> None:
    gather = Doubling(row_limit=4)
    await together(lane, *[lambda: steps(lane, gather, 1, 2, rows=2)] * 5)
    assert [len(run) for run in gather.runs] == [2, 2, 2, 2, 2]
    assert lane.statistics().occupancy == 4


async def test_a_call_larger_than_the_row_limit_runs_alone(lane: Lane) -> None:
    gather = Doubling(row_limit=1)
    results = await together(lane, *[lambda: steps(lane, gather, 1, 1, rows=2)] * 2)
    assert results == [[2], [2]]
    assert gather.runs == [[1], [1]]


async def test_a_late_arrival_joins_at_the_next_tick(lane: Lane) -> None:
    gather = Doubling()
    arrived = threading.Event()
    gather.before = lambda values: None if len(gather.runs) != 2 else wait_for_arrival()

    def wait_for_arrival() -> None:
        arrived.set()
        late_is_here.wait(10)

    late_is_here = threading.Event()
    early = asyncio.ensure_future(lane.run(lambda: steps(lane, gather, 1, 4)))
    await until(arrived.is_set)
    late = asyncio.ensure_future(lane.run(lambda: steps(lane, gather, 2, 2)))
    await asyncio.sleep(0)
    late_is_here.set()
    await asyncio.gather(early, late)
    assert gather.runs == [[1], [1], [1, 2], [1, 2]]


async def test_a_task_knows_what_it_shared(lane: Lane) -> None:
    gather = Doubling()

    def facts() -> Any:
        steps(lane, gather, 1, 2, rows=2)
        return lane.shared()

    first, _ = await together(lane, facts, lambda: steps(lane, gather, 1, 1, rows=3))
    assert (first.ticks, first.rows) == (2, 7)


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


async def test_each_task_sees_the_context_variables_of_its_caller(lane: Lane) -> None:
    name = contextvars.ContextVar("name", default="nobody")

    async def caller(value: str) -> str:
        name.set(value)
        return await lane.run(name.get)

    assert [await asyncio.create_task(caller(value)) for value in ("ann", "bob")] == ["ann", "bob"]
    assert await lane.run(name.get) == "nobody"


async def test_tasks_that_stand_alone_run_one_after_the_other(lane: Lane) -> None:
    gather = Doubling()
    gate = Gate(lane)
    alone = [
        asyncio.ensure_future(lane.run(lambda value=value: steps(lane, gather, value, 2), alone="offloaded"))
        for value in (1, 2)
    ]
    other = asyncio.ensure_future(lane.run(lambda: steps(lane, gather, 3, 4)))
    await gate.open()
    await asyncio.gather(*alone, other)
    assert gather.runs == [[1, 3], [1, 3], [3, 2], [3, 2]]


async def test_a_task_that_stands_alone_does_not_keep_the_lane_busy_for_the_next(lane: Lane) -> None:
    for value in range(3):
        assert await lane.run(lambda value=value: value, alone="offloaded") == value


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
