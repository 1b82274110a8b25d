"""Who stays loaded: residents for good, the others while they are used; and what those who wait are told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from router import lease as lease_module
from router.errors import BackendUnavailableError, LoadError, MemoryBudgetError
from router.footprint import Footprint
from router.types import Loading
from tests.configurations import read
from tests.doubles import PIXELS, Clock, Double, router_of, settle, until
from tests.pool_doubles import WEIGHTS, callers, pool_of, promised
from tests.services import fake_config, serving


async def used(pool, name: str) -> None:  # type: ignore[no-untyped-def]
    (caller,) = await callers(pool, name)
    await caller.end()


# --- idle instances


async def test_what_nobody_has_used_for_so_long_is_unloaded() -> None:
    clock, a, b = Clock(), Double("a"), Double("b")
    pool = await pool_of(a, b, clock=clock, idle_unload_s=60)
    await used(pool, "a")
    clock.now += 40
    await used(pool, "b")
    clock.now += 20
    pool.residency.unload_idle()
    await settle()
    assert ("unload" in a.calls, "unload" in b.calls) == (True, False)
    await used(pool, "a")
    assert a.calls.count("load") == 2
    await pool.close()


async def test_what_runs_or_is_waited_for_is_not_idle() -> None:
    clock, a = Clock(), Double("a")
    pool = await pool_of(a, clock=clock, idle_unload_s=60)
    (running,) = await callers(pool, "a")
    clock.now += 1_000
    pool.residency.unload_idle()
    assert "unload" not in a.calls
    await running.end()
    pool.residency.unload_idle()
    await settle()
    assert "unload" not in a.calls  # it was used until now
    await pool.close()


async def test_nobody_need_ask_for_it() -> None:
    a = Double("a")
    async with router_of(a, memory={"idle_unload_s": 0.02}) as router:
        await router.generate(prompt="a")
        await until(lambda: "unload" in a.calls)
        await router.generate(prompt="a")
        assert a.calls.count("load") == 2


async def test_without_the_setting_everything_stays() -> None:
    clock, a = Clock(), Double("a")
    pool = await pool_of(a, clock=clock)
    await used(pool, "a")
    clock.now += 10**6
    pool.residency.unload_idle()
    assert "unload" not in a.calls


# --- residents


async def test_a_resident_is_never_unloaded_for_being_idle() -> None:
    clock, a = Clock(), Double("a")
    pool = await pool_of(a, clock=clock, idle_unload_s=60, residents={"a"})
    await used(pool, "a")
    clock.now += 1_000
    pool.residency.unload_idle()
    assert "unload" not in a.calls
    await pool.close()
    assert "unload" in a.calls


async def test_a_resident_makes_no_room_for_others() -> None:
    """Though it was used least recently."""
    clock, doubles = Clock(), [Double("always"), Double("a"), Double("b")]
    pool = await pool_of(*doubles, budget=2 * WEIGHTS + PIXELS, clock=clock, residents={"always"})
    for name in ("always", "a"):
        clock.now += 1
        await used(pool, name)
    await used(pool, "b")
    assert ["unload" in double.calls for double in doubles] == [False, True, False]


async def test_what_does_not_fit_beside_residents_is_refused_with_numbers() -> None:
    """It would wait for ever, and everything younger behind it."""
    always, large = Double("always"), Double("large", footprint=Footprint(1_500, 1, 0))
    pool = await pool_of(always, large, budget=2_000, residents={"always"})
    (never,) = await callers(pool, "large")
    with pytest.raises(MemoryBudgetError) as caught:
        await never.task
    assert str(caught.value) == (
        "large needs 1,500 bytes on gpu for its weights, where 1,000 may be promised beside what is always"
        " resident (always 1 kB)."
    )


async def test_many_pictures_beside_a_resident_take_what_it_leaves() -> None:
    """More would never be free."""
    pool = await pool_of(Double("always"), Double("a"), budget=2 * WEIGHTS + 2 * PIXELS, residents={"always"})
    (many,) = await callers(pool, "a", num_images_per_prompt=8)
    assert many.inside
    assert promised(pool) == WEIGHTS + 2 * PIXELS


async def test_residents_are_loaded_when_a_service_asks() -> None:
    a, b = Double("a"), Double("b")
    async with router_of(a, b, residents={"b"}) as router:
        await router.load_resident()
        assert ("load" in a.calls, "load" in b.calls) == (False, True)


async def test_a_resident_that_cannot_serve_is_told() -> None:
    a, b = Double("a"), Double("b")
    b.fails["probe"] = [BackendUnavailableError("The server is down.")]
    async with router_of(a, b, residents={"b"}) as router:
        with pytest.raises(BackendUnavailableError, match=r"b is resident, and cannot be loaded: .*is down"):
            await router.load_resident()
    c = Double("c")
    c.fails["load"] = [LoadError("It is torn.")]
    async with router_of(c, residents={"c"}) as router:
        with pytest.raises(LoadError, match="It is torn"):
            await router.load_resident()


def test_a_service_has_loaded_its_residents_before_it_is_ready(tmp_path: Path) -> None:
    plain = fake_config()
    (model,) = plain.models
    (instance,) = model.instances
    resident = instance.model_copy(update={"resident": True})
    models = (model.model_copy(update={"instances": (resident,)}),)
    with serving(tmp_path, plain.model_copy(update={"models": models})) as service:
        assert service.calls("load") == 1
    with serving(tmp_path, plain) as service:
        assert service.calls("load") == 0


def test_a_model_of_the_file_makes_all_its_instances_resident(tmp_path: Path) -> None:
    both = '[[models.m.instances]]\nbackend = "fake"\n' * 2
    config = read(tmp_path, f"[models.m]\nresident = true\n{both}")
    assert [each.resident for each in config.models[0].instances] == [True, True]
    config = read(tmp_path, both + "resident = true\n")
    assert [each.resident for each in config.models[0].instances] == [False, True]


# --- those who wait for a load


async def test_who_waits_for_a_load_hears_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "_LOADING_EVERY_S", 0.005)
    clock, a = Clock(), Double("a")
    pool = await pool_of(a, clock=clock, idle_unload_s=60)
    a.may_load.clear()
    (first,) = await callers(pool, "a")
    clock.now += 8
    a.may_load.set()
    await until(lambda: first.inside)
    assert first.events[0] == Loading("a", elapsed_s=0.0, expected_s=None)
    await first.end()
    clock.now += 60
    pool.residency.unload_idle()
    await settle()
    a.may_load.clear()
    (second,) = await callers(pool, "a")
    clock.now += 2
    await until(lambda: len(second.events) > 1 and second.events[-1] == Loading("a", 2.0, expected_s=8.0))
    a.may_load.set()
    await until(lambda: second.inside)
    await second.end()
    await pool.close()


async def test_who_gives_up_waiting_does_not_stop_the_load() -> None:
    a = Double("a")
    pool = await pool_of(a)
    a.may_load.clear()
    first, second = await callers(pool, "a", "a")
    await first.cancel()
    a.may_load.set()
    await asyncio.wait_for(until(lambda: second.inside), 5)
    assert a.calls.count("load") == 1
