"""Bytes of a device: who waits for them, in which order, and who is refused."""

from __future__ import annotations

import pytest

from router.errors import MemoryBudgetError
from router.footprint import Footprint
from tests.doubles import PIXELS, Double, settle
from tests.pool_doubles import WEIGHTS, callers, pool_of, promised


async def test_bytes_are_weights_while_loaded_and_workspace_while_working() -> None:
    pool = await pool_of(Double(), budget=10_000)
    first, second = await callers(pool, "a", "a", guidance_scale=3.0)
    assert promised(pool) == WEIGHTS + 2 * 2 * PIXELS
    await first.end()
    await second.end()
    assert promised(pool) == WEIGHTS
    await pool.close()
    assert promised(pool) == 0


async def test_a_request_waits_for_bytes_that_run() -> None:
    pool = await pool_of(Double(), budget=WEIGHTS + 2 * PIXELS)
    first, second, third = await callers(pool, "a", "a", "a")
    assert [caller.inside for caller in (first, second, third)] == [True, True, False]
    await second.end()
    assert third.inside


async def test_more_pictures_than_fit_take_what_there_is() -> None:
    pool = await pool_of(Double(), budget=WEIGHTS + 2 * PIXELS)
    (many,) = await callers(pool, "a", num_images_per_prompt=8)
    assert many.inside
    assert promised(pool) == WEIGHTS + 2 * PIXELS


async def test_a_queued_request_does_not_keep_its_instance_loaded() -> None:
    """Else the request queued for `a` blocks the load of `b`, which blocks the request, for ever."""
    a, b = Double("a"), Double("b")
    pool = await pool_of(a, b, budget=WEIGHTS + PIXELS)
    (running,) = await callers(pool, "a")
    (for_b,) = await callers(pool, "b")
    (for_a,) = await callers(pool, "a")
    assert not for_b.inside
    assert not for_a.inside
    await running.end()
    assert for_b.inside
    assert "unload" in a.calls
    await for_b.end()
    assert for_a.inside


async def test_a_request_queued_while_another_instance_loads_is_served_after_it() -> None:
    a, b = Double("a"), Double("b")
    pool = await pool_of(a, b, budget=WEIGHTS + PIXELS)
    b.may_load.clear()
    (for_b,) = await callers(pool, "b")
    (for_a,) = await callers(pool, "a")
    b.may_load.set()
    await settle()
    assert for_b.inside
    await for_b.end()
    assert for_a.inside


async def test_requests_for_a_loaded_instance_overtake_only_so_often() -> None:
    a, b = Double("a"), Double("b")
    pool = await pool_of(a, b, budget=WEIGHTS + 2 * PIXELS, concurrency=2)
    (running,) = await callers(pool, "a")
    (for_b,) = await callers(pool, "b")
    for _ in range(2):
        (overtaking,) = await callers(pool, "a")
        assert overtaking.inside
        await overtaking.end()
    (behind,) = await callers(pool, "a")
    assert not behind.inside
    await running.end()
    assert for_b.inside
    await for_b.end()
    assert behind.inside


async def test_no_younger_request_begins_a_load_while_an_older_one_waits_for_bytes() -> None:
    """The small one would hold what the large one waits for."""
    a, large = Double("a"), Double("large", footprint=Footprint(2_000, 1, 0))
    small = Double("small", footprint=Footprint(100, 1, 0))
    pool = await pool_of(a, large, small, budget=2_000 + 2 * PIXELS)
    (running,) = await callers(pool, "a")
    (first,) = await callers(pool, "large")
    (second,) = await callers(pool, "small")
    assert "load" not in small.calls
    await running.end()
    assert first.inside
    await first.end()
    assert second.inside


async def test_a_cancelled_wait_for_bytes_lets_the_others_on() -> None:
    a, b = Double("a"), Double("b")
    pool = await pool_of(a, b, budget=WEIGHTS + 2 * PIXELS, concurrency=1)
    (running,) = await callers(pool, "a")
    (for_b,) = await callers(pool, "b")
    (for_a,) = await callers(pool, "a")
    await for_b.cancel()
    await running.end()
    assert for_a.inside


async def test_devices_do_not_wait_for_each_other() -> None:
    a, b = Double("a"), Double("b", device="cpu")
    pool = await pool_of(a, b, budget=WEIGHTS + PIXELS)
    await callers(pool, "a", "a")
    (on_cpu,) = await callers(pool, "b")
    assert on_cpu.inside


async def test_weights_that_can_never_fit_are_refused_at_once() -> None:
    pool = await pool_of(Double("a"), Double("b", footprint=Footprint(5_000, 1, 0)), budget=2_000)
    (running,) = await callers(pool, "a")
    (never,) = await callers(pool, "b")
    with pytest.raises(MemoryBudgetError, match="5,000 bytes on gpu"):
        await never.task
    assert running.inside
