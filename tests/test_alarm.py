from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable

import pytest
import uvloop

from router.alarm import Alarm, Alarms

# What takes its place is for all tests at once, and would give each a name of its own.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """uvloop is the service's: its clock has milliseconds, and its timers are of other classes."""
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


@pytest.fixture
async def alarms() -> Alarms:
    return Alarms.of(asyncio.get_running_loop())


class TimersCounted:
    """A loop that writes down for when timers are set."""

    def __init__(self, loop: asyncio.AbstractEventLoop, set: list[float]) -> None:
        self._loop = loop
        self._set = set

    def call_at(self, at: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        self._set.append(at)
        return self._loop.call_at(at, callback)


async def test_they_ring_in_their_order_whenever_they_were_set(alarms: Alarms) -> None:
    rung: list[int] = []
    began = alarms.loop.time()
    for part in (3, 1, 4, 2):
        alarms.set(began + part / 100, lambda part=part: rung.append(part))  # type: ignore[misc]
    await asyncio.sleep(0.06)
    assert rung == [1, 2, 3, 4]


async def test_one_that_is_turned_off_does_not_ring_and_the_others_do(alarms: Alarms) -> None:
    rung: list[str] = []
    at = alarms.loop.time() + 0.01
    off, _ = alarms.set(at, lambda: rung.append("off")), alarms.set(at, lambda: rung.append("on"))
    alarms.turn_off(off)
    alarms.turn_off(off)
    await asyncio.sleep(0.03)
    assert rung == ["on"]


async def test_one_can_be_turned_off_by_another_that_rings_at_the_same_time(alarms: Alarms) -> None:
    rung: list[str] = []
    at = alarms.loop.time() + 0.01
    alarms.set(at, lambda: alarms.turn_off(second))
    second = alarms.set(at, lambda: rung.append("second"))
    await asyncio.sleep(0.03)
    assert rung == []


async def test_one_may_set_the_next(alarms: Alarms) -> None:
    rung = asyncio.Event()
    alarms.set(alarms.loop.time(), lambda: alarms.set(alarms.loop.time() + 0.01, rung.set))
    await asyncio.wait_for(rung.wait(), 5)


async def test_one_that_raises_takes_none_along(alarms: Alarms) -> None:
    rung, told = asyncio.Event(), []
    alarms.loop.set_exception_handler(lambda loop, facts: told.append(facts["exception"]))
    at = alarms.loop.time() + 0.01
    alarms.set(at, lambda: 1 / 0)
    alarms.set(at, rung.set)
    await asyncio.wait_for(rung.wait(), 5)
    assert [type(each) for each in told] == [ZeroDivisionError]


async def test_a_thousand_take_one_timer_and_those_turned_off_no_memory(
    alarms: Alarms, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, timers = alarms.loop.time(), []
    monkeypatch.setattr(alarms, "loop", TimersCounted(alarms.loop, timers))
    first = alarms.set(now + 10, lambda: None)
    for alarm in [alarms.set(now + 60, lambda: None) for _ in range(1000)]:
        alarms.turn_off(alarm)
    assert timers == [now + 10]
    assert len(alarms._set) < 200
    alarms.turn_off(first)
    assert alarms._set == []


async def test_by_chance_each_rings_once_unless_it_was_turned_off(alarms: Alarms) -> None:
    chance, now = random.Random(3), alarms.loop.time()
    rung: list[int] = []
    made: dict[int, Alarm] = {}
    for number in range(500):
        at = now + chance.uniform(0, 0.05)
        made[number] = alarms.set(at, lambda number=number: rung.append(number))  # type: ignore[misc]
    off = set(chance.sample(range(500), 300))
    for number in off:
        alarms.turn_off(made[number])
    await asyncio.sleep(0.1)
    assert sorted(rung) == sorted(set(made) - off)


async def test_each_loop_has_its_own(alarms: Alarms) -> None:
    others: list[Alarms] = []

    async def other() -> None:
        others.extend([Alarms.of(asyncio.get_running_loop()), Alarms.of(asyncio.get_running_loop())])

    thread = threading.Thread(target=lambda: asyncio.run(other()))
    thread.start()
    thread.join()
    assert others[0] is others[1] is not alarms
    assert Alarms.of(alarms.loop) is alarms


async def test_those_a_part_of_a_millisecond_apart_ring_all(alarms: Alarms) -> None:
    began, rung = alarms.loop.time(), asyncio.Queue[int]()
    for part in range(50):
        alarms.set(began + part / 7000, lambda part=part: rung.put_nowait(part))  # type: ignore[misc]
    heard = [await asyncio.wait_for(rung.get(), 5) for _ in range(50)]
    assert heard == list(range(50))
