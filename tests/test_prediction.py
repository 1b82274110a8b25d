"""Time in the pool: what is predicted before a request, and what was measured after it."""

from __future__ import annotations

from tests.doubles import PIXELS, Clock, Double, effective_request, settle
from tests.pool_doubles import WEIGHTS, callers, pool_of


async def test_predicted_completion_grows_with_what_runs_and_waits() -> None:
    clock = Clock()
    pool = await pool_of(Double(), clock=clock, concurrency=1)
    slot, request = pool.slot("a"), effective_request()
    assert 0 < slot.predicted_s(request) < 0.001
    (measured,) = await callers(pool, "a")
    clock.now += 2.0
    await measured.end()
    assert slot.predicted_s(request) == 2.0
    assert slot.predicted_s(effective_request(num_inference_steps=8)) == 4.0
    await callers(pool, "a", "a")
    assert slot.predicted_s(request) == 6.0


async def test_predicted_completion_counts_a_load_that_is_due() -> None:
    clock = Clock()
    a, b = Double("a"), Double("b")
    a.may_load.clear()
    pool = await pool_of(a, b, clock=clock, budget=WEIGHTS + PIXELS)
    (first,) = await callers(pool, "a")
    clock.now += 5.0
    a.may_load.set()
    await settle()
    clock.now += 2.0
    await first.end()
    assert pool.slot("a").predicted_s(effective_request()) == 2.0
    await callers(pool, "b")
    assert pool.slot("a").predicted_s(effective_request()) == 7.0


async def test_timings_tell_the_stages_apart() -> None:
    clock = Clock()
    double = Double()
    double.may_load.clear()
    pool = await pool_of(double, clock=clock, concurrency=1)
    first, second = await callers(pool, "a", "a")
    clock.now += 3.0
    double.may_load.set()
    await settle()
    clock.now += 4.0
    await first.end()
    clock.now += 5.0
    await second.end()
    assert first.lease.timings().load_s == 3.0
    assert first.lease.timings().generate_s == 4.0
    assert second.lease.timings().queued_s == 7.0
    assert second.lease.timings().generate_s == 5.0
