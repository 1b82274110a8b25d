from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from router.deadline import Deadline


def deadline(seconds: float | None) -> Deadline:
    task: asyncio.Task[Any] | None = asyncio.current_task()
    assert task is not None
    return Deadline(task, seconds)


async def test_it_stops_the_block_when_the_time_has_come() -> None:
    with pytest.raises(TimeoutError), deadline(0.01):
        await asyncio.sleep(60)
    await asyncio.sleep(0)  # the task is as good as new


async def test_a_block_that_ends_in_time_is_left_alone() -> None:
    with deadline(0.01):
        pass
    await asyncio.sleep(0.03)


async def test_without_seconds_it_never_comes() -> None:
    never = deadline(None)
    with never:
        await asyncio.sleep(0)
    assert never.left_s() is None


async def test_one_deadline_holds_for_several_blocks() -> None:
    one = deadline(0.03)
    with one:
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), one:
        await asyncio.sleep(60)
    assert one.left_s() == 0.0


@pytest.mark.parametrize("error", [None, OSError("reset"), TimeoutError("of the library")], ids=str)
async def test_whatever_comes_out_of_a_stopped_block_it_has_timed_out(error: Exception | None) -> None:
    with pytest.raises(TimeoutError) as caught, deadline(0.01):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        if error is not None:
            raise error
    assert str(caught.value) == ""


async def test_a_timeout_of_the_block_itself_goes_through() -> None:
    with pytest.raises(TimeoutError, match="of the library"), deadline(60):
        raise TimeoutError("of the library")


async def test_a_cancel_beside_the_deadline_stays_a_cancel() -> None:
    async def block() -> None:
        with deadline(0.01):
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.shield(ending)

    ending = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(block())
    await asyncio.sleep(0.03)
    task.cancel()
    ending.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        await task
