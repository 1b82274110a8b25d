"""The pool: instances are loaded when first leased, once for all who wait, and unloaded at the end."""

from __future__ import annotations

import asyncio

import pytest

from router.errors import LoadError, RouterError
from router.types import Loading, ignore_event
from tests.doubles import Double, effective_request, settle
from tests.pool_doubles import WEIGHTS, callers, pool_of, promised

# --- loading


async def test_the_first_lease_loads_and_the_next_finds_it_loaded() -> None:
    double = Double()
    pool = await pool_of(double)
    first, second = await callers(pool, "a", "a")
    assert first.inside
    assert second.inside
    assert double.calls.count("load") == 1
    assert first.events == second.events == [Loading("a")]
    (third,) = await callers(pool, "a")
    assert third.events == []


async def test_who_gives_up_waiting_does_not_stop_the_load() -> None:
    double = Double()
    double.may_load.clear()
    pool = await pool_of(double)
    first, second = await callers(pool, "a", "a")
    await first.cancel()
    double.may_load.set()
    await settle()
    assert second.inside
    assert double.calls.count("load") == 1


async def test_a_load_that_nobody_waits_for_any_more_is_kept() -> None:
    double = Double()
    double.may_load.clear()
    pool = await pool_of(double, budget=10_000)
    (only,) = await callers(pool, "a")
    await only.cancel()
    assert promised(pool) == WEIGHTS
    double.may_load.set()
    await settle()
    assert repr(pool) == "<Pool [1 ready | 0 running, 0 waiting]>"


async def test_a_failed_load_fails_everyone_who_waits_and_the_next_request_tries_again() -> None:
    double = Double()
    double.may_load.clear()
    double.fails["load"] = [LoadError("The file is cut off.")]
    pool = await pool_of(double, budget=10_000, concurrency=2)
    waiting = await callers(pool, "a", "a", "a")
    double.may_load.set()
    await settle()
    for caller in waiting:
        with pytest.raises(LoadError, match="cut off"):
            await caller.task
    assert repr(pool) == "<Pool [1 failed | 0 running, 0 waiting]>"
    assert promised(pool) == 0
    (after,) = await callers(pool, "a")
    assert after.inside
    assert double.calls.count("load") == 2


async def test_a_failed_load_counts_once_for_the_breaker() -> None:
    double = Double()
    double.fails["load"] = [LoadError("No."), LoadError("No."), LoadError("No.")]
    pool = await pool_of(double)
    breaker = pool.slot("a").instance.breaker
    for _ in range(2):
        for caller in await callers(pool, *["a"] * 5):
            with pytest.raises(LoadError):
                await caller.task
    assert not breaker.is_open
    (last,) = await callers(pool, "a")
    with pytest.raises(LoadError):
        await last.task
    assert breaker.is_open


async def test_what_a_strange_backend_raises_while_loading_is_a_load_error() -> None:
    double = Double()
    double.fails["load"] = [KeyError("secret")]
    pool = await pool_of(double)
    (only,) = await callers(pool, "a")
    with pytest.raises(LoadError, match="KeyError") as caught:
        await only.task
    assert "secret" not in str(caught.value)
    assert caught.value.instance == "a"


# --- the end


async def test_closing_refuses_who_waits_and_unloads_after_who_runs() -> None:
    double = Double()
    pool = await pool_of(double, concurrency=1)
    running, waiting = await callers(pool, "a", "a")
    closing = asyncio.create_task(pool.close())
    await settle()
    with pytest.raises(RouterError, match="closed"):
        await waiting.task
    assert "unload" not in double.calls
    await running.end()
    await closing
    assert double.calls[-1] == "unload"
    with pytest.raises(RouterError, match="closed"):
        await pool.lease("a", effective_request(), ignore_event).__aenter__()


async def test_closing_waits_for_a_load() -> None:
    double = Double()
    double.may_load.clear()
    pool = await pool_of(double)
    (only,) = await callers(pool, "a")
    await only.cancel()
    closing = asyncio.create_task(pool.close())
    await settle()
    assert not closing.done()
    double.may_load.set()
    await closing
    assert double.calls[-1] == "unload"


async def test_repr_tells_the_state() -> None:
    a, b = Double("a"), Double("b")
    b.may_load.clear()
    pool = await pool_of(a, b, concurrency=1)
    assert repr(pool) == "<Pool [2 cold | 0 running, 0 waiting]>"
    await callers(pool, "a", "a", "b")
    assert repr(pool) == "<Pool [1 loading, 1 ready | 2 running, 1 waiting]>"
    assert repr(pool.slot("a")) == "<Slot 'a' ready, 1 running, 1 waiting>"
    b.may_load.set()
