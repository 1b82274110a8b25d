"""Ticks of a lane: which calls share one, in which order, up to which row limit. Calls carry numbers."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from router.call import Call
from router.lane import Lane
from tests.doubles import until
from tests.lane_doubles import Doubling, Gate, steps, together


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


async def test_an_urgent_call_goes_first_so_that_its_task_joins_the_others_sooner(lane: Lane) -> None:
    gather = Doubling()

    def newcomer() -> None:
        for word in ("prompt", "negative"):
            lane.call(Call("encode", 1, gather, word, urgent=True))
        steps(lane, gather, 2, 2)

    await together(lane, lambda: steps(lane, gather, 1, 2), newcomer)
    assert gather.runs == [["prompt"], ["negative"], [1, 2], [1, 2]]


async def test_urgent_calls_of_one_key_share_a_tick(lane: Lane) -> None:
    gather = Doubling()
    encode = [lambda word=word: lane.call(Call("encode", 1, gather, word, urgent=True)) for word in "ab"]
    await together(lane, encode[0], lambda: steps(lane, gather, 1, 1), encode[1])
    assert gather.runs == [["a", "b"], [1]]


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
