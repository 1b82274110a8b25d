"""Breakers in the router: what opens one, what does not, and how it closes again."""

from __future__ import annotations

import pytest

from router.config import BreakerConfig
from router.errors import (
    BackendUnavailableError,
    DeviceLostError,
    GenerateError,
    LoadError,
)
from tests.doubles import (
    BROKE,
    Clock,
    Double,
    begin,
    breakers,
    broke,
    router_of,
    settle,
)


async def test_an_instance_that_fails_distinct_requests_is_left_alone() -> None:
    a, b = Double("a"), Double("b")
    a.fails = broke(10)
    async with router_of(a, b, breaker=BreakerConfig(failures=3)) as router:
        for index in range(5):
            await router.generate(prompt=f"picture {index}")
        assert breakers(router) == ["open", "closed"]
        assert len(a.seen) == 3
        route = await router.explain(prompt="a")
        assert BROKE.rstrip(".") in route.rejections["a"]


async def test_a_poisonous_request_opens_no_breaker_where_it_fails_everywhere() -> None:
    """Neither by being repeated, nor by being varied a little each time."""
    a, b, c = Double("a"), Double("b"), Double("c")
    async with router_of(a, b, c, breaker=BreakerConfig(failures=2)) as router:
        for index in range(20):
            prompt = f"poison {index // 2}"
            for double in (a, b, c):
                double.poison[prompt] = GenerateError(BROKE)
            with pytest.raises(GenerateError):
                await router.generate(prompt=prompt)
        assert breakers(router) == ["closed"] * 3
        assert (await router.generate(prompt="a circle")).instance == "a"


async def test_a_poisonous_request_repeated_does_not_open_the_only_breaker() -> None:
    a = Double()
    a.poison["poison"] = GenerateError(BROKE)
    async with router_of(a, breaker=BreakerConfig(failures=3)) as router:
        for _ in range(10):
            with pytest.raises(GenerateError):
                await router.generate(prompt="poison")
        assert breakers(router) == ["closed"]
        await router.generate(prompt="a circle")


async def test_an_instance_that_alone_fails_on_a_request_is_blamed_for_it() -> None:
    """Two fail, the third serves: the request was good."""
    a, b, c = Double("a"), Double("b"), Double("c")
    a.fails, b.fails = broke(), broke()
    async with router_of(a, b, c, breaker=BreakerConfig(failures=1)) as router:
        await router.generate(prompt="a")
        assert breakers(router) == ["open", "open", "closed"]


async def test_a_server_that_is_down_is_left_alone_whatever_is_asked() -> None:
    a = Double()
    a.fails["generate"] = [BackendUnavailableError("The server is down.") for _ in range(3)]
    async with router_of(a, breaker=BreakerConfig(failures=3)) as router:
        for _ in range(3):
            with pytest.raises(BackendUnavailableError, match="server is down"):
                await router.generate(prompt="the same")
        with pytest.raises(BackendUnavailableError, match="tried again in"):
            await router.generate(prompt="the same")
        assert len(a.seen) == 3


async def test_a_failed_load_counts_once_however_many_waited_for_it() -> None:
    a, b = Double("a"), Double("b")
    a.may_load.clear()
    a.fails["load"] = [LoadError("The file is cut off.")]
    async with router_of(a, b, breaker=BreakerConfig(failures=2)) as router:
        tasks = [begin(router, f"{index}") for index in range(4)]
        await settle()
        a.may_load.set()
        assert [(await task).instance for task in tasks] == ["b"] * 4
        assert breakers(router) == ["closed", "closed"]


async def test_a_lost_device_is_left_alone_at_once() -> None:
    a, b = Double("a"), Double("b")
    a.fails["generate"] = [DeviceLostError("The device is gone.")]
    async with router_of(a, b) as router:
        await router.generate(prompt="a")
        assert breakers(router) == ["open", "closed"]


async def test_an_open_breaker_is_tried_by_a_probe_and_never_by_a_picture() -> None:
    clock = Clock()
    a, b = Double("a"), Double("b")
    a.fails = broke(3)
    async with router_of(a, b, clock=clock, breaker=BreakerConfig(failures=3, reset_s=30)) as router:
        for index in range(3):
            await router.generate(prompt=f"{index}")
        clock.now += 30
        a.fails["probe"] = [BackendUnavailableError("Still on fire.")]
        for _ in range(2):
            assert (await router.generate(prompt="a")).instance == "b"
            await settle()
        assert len(a.seen) == 3
        assert breakers(router) == ["open", "closed"]
        clock.now += 30
        await router.generate(prompt="a")
        await settle()
        assert breakers(router) == ["half-open", "closed"]
        assert (await router.generate(prompt="a")).instance == "a"
        assert breakers(router) == ["closed", "closed"]
        assert a.calls.count("probe") == 3


async def test_where_nobody_else_could_serve_the_probe_is_waited_for() -> None:
    clock = Clock()
    a = Double()
    a.fails = broke()
    async with router_of(a, clock=clock, breaker=BreakerConfig(failures=1, reset_s=30)) as router:
        with pytest.raises(GenerateError):
            await router.generate(prompt="a")
        with pytest.raises(BackendUnavailableError):
            await router.generate(prompt="a")
        clock.now += 30
        assert (await router.generate(prompt="a")).instance == "a"
