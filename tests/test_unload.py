"""Unloading to make room: which idle instances go, and what meets one that is going."""

from __future__ import annotations

from router.errors import RouterError
from router.footprint import Footprint
from tests.doubles import PIXELS, Clock, Double, settle
from tests.pool_doubles import WEIGHTS, callers, pool_of


async def test_idle_instances_make_room_least_recently_used_first() -> None:
    clock = Clock()
    doubles = [Double("a"), Double("b"), Double("c")]
    pool = await pool_of(*doubles, budget=2 * WEIGHTS + PIXELS, clock=clock)
    for name in ("a", "b", "a"):
        clock.now += 1
        (caller,) = await callers(pool, name)
        clock.now += 1
        await caller.end()
    (third,) = await callers(pool, "c")
    assert third.inside
    assert [double.calls.count("unload") for double in doubles] == [0, 1, 0]


async def test_no_more_is_unloaded_than_is_needed() -> None:
    doubles = [Double("a"), Double("b"), Double("c")]
    pool = await pool_of(*doubles, budget=2 * WEIGHTS + 2 * PIXELS)
    for name in ("a", "b"):
        (caller,) = await callers(pool, name)
        await caller.end()
    doubles[0].may_unload.clear()
    waiting = await callers(pool, "c", "c")
    assert sum("unload" in double.calls for double in doubles) == 1
    doubles[0].may_unload.set()
    await settle()
    assert all(caller.inside for caller in waiting)
    assert sum("unload" in double.calls for double in doubles) == 1


async def test_nothing_is_unloaded_where_that_would_not_make_room() -> None:
    small, busy = Double("small", footprint=Footprint(100, 1, 0)), Double("busy")
    large = Double("large", footprint=Footprint(2_000, 1, 0))
    pool = await pool_of(small, busy, large, budget=2_000 + PIXELS)
    (idle,) = await callers(pool, "small")
    await idle.end()
    (running,) = await callers(pool, "busy")
    (waiting,) = await callers(pool, "large")
    assert "unload" not in small.calls
    await running.end()
    assert waiting.inside
    assert "unload" in small.calls
    assert "unload" in busy.calls


async def test_an_unload_that_fails_gives_the_bytes_back() -> None:
    a, b = Double("a"), Double("b")
    a.fails["unload"] = [RouterError("It does not go.")]
    pool = await pool_of(a, b, budget=WEIGHTS + PIXELS)
    (first,) = await callers(pool, "a")
    await first.end()
    (second,) = await callers(pool, "b")
    assert second.inside
    assert repr(pool) == "<Pool [1 ready, 1 failed | 1 running, 0 waiting]>"


async def test_a_request_for_an_instance_that_is_being_unloaded_waits_and_loads_it_again() -> None:
    a, b = Double("a"), Double("b")
    pool = await pool_of(a, b, budget=WEIGHTS + PIXELS)
    (first,) = await callers(pool, "a")
    await first.end()
    a.may_unload.clear()
    (for_b,) = await callers(pool, "b")
    (for_a,) = await callers(pool, "a")
    a.may_unload.set()
    await settle()
    assert for_b.inside
    await for_b.end()
    assert for_a.inside
    assert a.calls.count("load") == 2


async def test_nothing_is_loaded_while_it_is_being_unloaded() -> None:
    a, b = Double("a"), Double("b", footprint=Footprint(2_000, 1, 0))
    pool = await pool_of(a, b, budget=2_500)
    (first,) = await callers(pool, "a")
    await first.end()
    a.may_unload.clear()
    (for_b,) = await callers(pool, "b")
    await for_b.cancel()
    (for_a,) = await callers(pool, "a")
    assert a.calls.count("load") == 1
    a.may_unload.set()
    await settle()
    assert for_a.inside
    assert a.calls.count("load") == 2
