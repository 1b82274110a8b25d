"""The queue before an instance: the order of places, who leaves it, and when it is full."""

from __future__ import annotations

import asyncio

import pytest

from router.errors import QueueFullError
from router.types import Queued
from tests.doubles import Clock, Double, settle
from tests.pool_doubles import callers, pool_of


async def test_places_are_given_in_order_of_arrival() -> None:
    pool = await pool_of(Double(), concurrency=1)
    first, second, third = await callers(pool, "a", "a", "a")
    assert [caller.inside for caller in (first, second, third)] == [True, False, False]
    assert second.events == [Queued("a", 1)]
    assert third.events == [Queued("a", 2)]
    await first.end()
    assert second.inside
    assert not third.inside
    assert third.events == [Queued("a", 2), Queued("a", 1)]


async def test_who_leaves_the_queue_makes_room() -> None:
    pool = await pool_of(Double(), concurrency=1)
    first, second, third = await callers(pool, "a", "a", "a")
    await second.cancel()
    await first.end()
    assert third.inside


async def test_a_place_given_at_the_moment_of_the_cancel_is_given_on() -> None:
    pool = await pool_of(Double(), concurrency=1)
    first, second, third = await callers(pool, "a", "a", "a")
    first.task.cancel()
    await asyncio.sleep(0)  # the place is second's now, who does not know it yet
    second.task.cancel()
    await settle()
    assert third.inside
    assert pool.slot("a").running == 1


async def test_a_full_queue_refuses_with_a_time_from_measured_speed() -> None:
    clock = Clock()
    pool = await pool_of(Double(), clock=clock, concurrency=2, queue=3)
    (measured,) = await callers(pool, "a")
    clock.now += 4.0
    await measured.end()
    await callers(pool, *["a"] * 5)
    (refused,) = await callers(pool, "a")
    with pytest.raises(QueueFullError) as caught:
        await refused.task
    assert caught.value.retry_after_s == 4.0 * 4 / 2
    assert "3 requests wait for a" in str(caught.value)
    assert repr(pool) == "<Pool [1 ready | 2 running, 3 waiting]>"


async def test_before_anything_was_measured_a_full_queue_names_no_time() -> None:
    pool = await pool_of(Double(), concurrency=1, queue=0)
    _, refused = await callers(pool, "a", "a")
    with pytest.raises(QueueFullError) as caught:
        await refused.task
    assert caught.value.retry_after_s is None


async def test_after_a_full_queue_the_next_is_served() -> None:
    pool = await pool_of(Double(), concurrency=1, queue=1)
    first, second, refused = await callers(pool, "a", "a", "a")
    with pytest.raises(QueueFullError):
        await refused.task
    await first.end()
    await second.end()
    (after,) = await callers(pool, "a")
    assert after.inside
