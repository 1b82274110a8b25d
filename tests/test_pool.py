from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from router.breaker import Breaker
from router.config import BreakerConfig, InstanceConfig, Limits
from router.errors import LoadError, MemoryBudgetError, QueueFullError, RouterError
from router.instance import Instance
from router.lease import Lease
from router.memory import MemoryLedger
from router.pool import Pool
from router.request import GenerateRequest
from router.types import Event, Footprint, Loading, Queued, ignore_event
from tests.doubles import PIXELS, Clock, Double, effective_request, settle

WEIGHTS = 1_000


async def pool_of(
    *doubles: Double, budget: int | None = None, clock: Callable[[], float] | None = None, **limits: int
) -> Pool:
    instances = [instance_of(double, budget) for double in doubles]
    await asyncio.gather(*[instance.probe() for instance in instances])
    ledger = MemoryLedger({} if budget is None else {"gpu": budget})
    return Pool(instances, Limits(**limits), ledger, clock or Clock())


def instance_of(double: Double, budget: int | None) -> Instance:
    async def make(config: InstanceConfig) -> Double:
        return double

    return Instance(
        "m",
        InstanceConfig(name=double.name, backend="double"),
        Breaker(BreakerConfig()),
        make,
        device_memory={} if budget is None else {"gpu": budget},
        on_probed=lambda _: None,
    )


class Caller:
    """One request that holds its lease until the test says `end`."""

    alive: ClassVar[list[Caller]] = []
    """A task that nobody holds is collected in the middle of the test, and leaves the pool."""

    def __init__(self, pool: Pool, instance: str, request: GenerateRequest | None = None) -> None:
        self.alive.append(self)
        self.events: list[Event] = []
        self.lease: Lease = pool.lease(instance, request or effective_request(), self.events.append)
        self.inside = False
        self._may_end = asyncio.Event()
        self.task = asyncio.create_task(self._hold())

    async def _hold(self) -> None:
        async with self.lease:
            self.inside = True
            await self._may_end.wait()

    def let_go(self) -> None:
        self._may_end.set()

    async def end(self) -> None:
        self.let_go()
        await self.task
        await settle()

    async def cancel(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task
        await settle()


@pytest.fixture(autouse=True)
def _let_callers_go() -> Iterator[None]:
    yield
    Caller.alive.clear()


async def callers(pool: Pool, *instances: str, **fields: Any) -> list[Caller]:
    made = [Caller(pool, instance, effective_request(**fields)) for instance in instances]
    await settle()
    return made


def promised(pool: Pool) -> int:
    return pool._ledger.promised_bytes("gpu")


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


# --- the queue


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


# --- bytes


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


def disturb(pool: Pool, doubles: list[Double], made: list[Caller], chance: random.Random) -> None:
    if chance.random() < 0.4:
        made.append(Caller(pool, chance.choice("abc")))
    double = chance.choice(doubles)
    if chance.random() < 0.1:
        double.fails.setdefault(chance.choice(["load", "unload"]), []).append(LoadError("No."))
    (double.may_load.set if chance.random() < 0.7 else double.may_load.clear)()
    if made and chance.random() < 0.3:
        chance.choice(made).task.cancel()
    if made and chance.random() < 0.5:
        chance.choice(made).let_go()


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_happens_everyone_is_served_or_told_and_every_byte_comes_back(seed: int) -> None:
    """Three instances of which two fit, faults, cancels and full queues at random moments."""
    chance = random.Random(seed)
    sizes = {"a": 1_000, "b": 1_200, "c": 700}
    doubles = [Double(name, footprint=Footprint(size, 1, 0)) for name, size in sizes.items()]
    pool = await pool_of(*doubles, budget=2_000 + 3 * PIXELS, concurrency=2, queue=6)
    made: list[Caller] = []
    for _ in range(150):
        disturb(pool, doubles, made, chance)
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        assert promised(pool) <= 2_000 + 3 * PIXELS
    for double in doubles:
        double.may_load.set()
    for caller in made:
        caller.let_go()
    await asyncio.wait_for(asyncio.wait([caller.task for caller in made]), timeout=5)
    for caller in made:
        assert caller.task.cancelled() or isinstance(caller.task.exception(), RouterError | None)
    await pool.close()
    assert promised(pool) == 0
    assert "0 running, 0 waiting" in repr(pool)


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


# --- prediction


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
    assert first.lease.timings.load_s == 3.0
    assert first.lease.timings.generate_s == 4.0
    assert second.lease.timings.queued_s == 7.0
    assert second.lease.timings.generate_s == 5.0
