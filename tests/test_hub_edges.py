"""What no task or Gather should do, and what must not end the lane's thread or let anyone wait for ever."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from router.call import Call
from router.errors import GenerateError
from router.lane import Lane
from tests.lane_doubles import Doubling, steps, together


class Answering:
    """A Gather that answers with whatever the function makes of the calls."""

    row_limit = 16

    def __init__(self, answer: Callable[[Sequence[Call]], Any]) -> None:
        self._answer = answer

    def __call__(self, calls: Sequence[Call]) -> Any:
        return self._answer(calls)


class Interruption(BaseException):
    """No `Exception`: what some libraries raise to get past `except Exception`."""


class Incomparable:
    """As a tensor is in a key: it has a hash, and `==` has no truth."""

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> Any:
        raise RuntimeError("ambiguous")


async def is_served(lane: Lane) -> bool:
    async with asyncio.timeout(5):
        return await lane.run(lambda: steps(lane, Doubling(), 4, 1)) == [8]


async def test_a_task_that_raises_stop_iteration_ends(lane: Lane) -> None:
    def stop() -> None:
        next(iter(()))

    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await lane.run(stop)


@pytest.mark.parametrize("results", [[], [1], [1, 2, 3]])
async def test_a_gather_with_a_wrong_number_of_results_fails_its_calls_only(
    lane: Lane, results: list[int]
) -> None:
    gather = Answering(lambda calls: results if len(calls) == 2 else [7, 7])
    call = Call("denoise", 1, gather)
    async with asyncio.timeout(5):
        outcomes = await together(lane, *[lambda: lane.call(call)] * 2)
    assert [type(outcome) for outcome in outcomes] == [RuntimeError, RuntimeError]
    assert "2 results for 1 calls" in str(outcomes[0])
    assert await is_served(lane)


async def test_a_gather_that_raises_no_exception_of_the_usual_kind(lane: Lane) -> None:
    def interrupt(calls: Sequence[Call]) -> Any:
        raise Interruption

    async with asyncio.timeout(5):
        with pytest.raises(Interruption):
            await lane.run(lambda: lane.call(Call("denoise", 1, Answering(interrupt))))
    assert await is_served(lane)


async def test_a_key_that_cannot_be_hashed_fails_its_task_alone(lane: Lane) -> None:
    gather = Doubling()

    def wrong() -> Any:
        return lane.call(Call(("denoise", []), 1, gather, 1))  # type: ignore[arg-type]

    async with asyncio.timeout(5):
        good, bad = await together(lane, lambda: steps(lane, gather, 1, 2), wrong)
    assert good == [2, 2]
    assert isinstance(bad, TypeError)


async def test_keys_that_cannot_be_compared_end_their_tasks_and_not_the_lane(lane: Lane) -> None:
    def incomparable() -> Any:
        return lane.call(Call((Incomparable(),), 1, Doubling(), 1))

    async with asyncio.timeout(5):
        outcomes = await together(lane, *[incomparable] * 3)
    assert [type(outcome) for outcome in outcomes] == [GenerateError] * 3
    assert isinstance(outcomes[0].__cause__, RuntimeError)
    assert lane.statistics().running == 0
    assert await is_served(lane)


async def test_the_error_of_a_call_still_says_where_it_was_raised(lane: Lane) -> None:
    def deep_inside(calls: Sequence[Call]) -> Any:
        raise ValueError

    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- what it says is not the point
        await lane.run(lambda: lane.call(Call("denoise", 1, Answering(deep_inside))))
    assert "deep_inside" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
