"""The route of a request: what `explain` tells of it, and whom the fastest policy picks."""

from __future__ import annotations

import asyncio

import pytest

from router.types import (
    ShapeProfile,
)
from tests.doubles import (
    Clock,
    Double,
    begin,
    router_of,
    settle,
)


async def test_explain_tells_the_route_and_runs_nothing() -> None:
    profile = ShapeProfile("32x32", 32, 32, "float32", (1,))
    a, b = Double("a"), Double("b", profiles=(profile,))
    async with router_of(a, b) as router:
        route = await router.explain(prompt="a")
        assert route.candidates == ("a",)
        assert "32x32" in route.rejections["b"]
        assert (await router.explain(prompt="a", height=17)).candidates == ()
    assert a.calls == b.calls == ["probe"]


@pytest.mark.parametrize("measured", [False, True])
async def test_the_fastest_policy_goes_by_what_runs_and_waits(measured: bool) -> None:
    a, b = Double("a"), Double("b")
    async with router_of(a, b, policy="fastest") as router:
        if measured:
            assert {(await router.generate(prompt="a")).instance for _ in range(2)} == {"a", "b"}
        for double in (a, b):
            double.may_generate.clear()
        tasks = [begin(router, str(index)) for index in range(6)]
        await settle()
        assert {a.running, b.running} != {0, 6}
        for double in (a, b):
            double.may_generate.set()
        await asyncio.gather(*tasks)


async def test_the_fastest_policy_leaves_the_slow_one_alone() -> None:
    clock = Clock()
    a, b = Double("a"), Double("b")
    seconds = {"a": 9.0, "b": 1.0}
    async with router_of(a, b, policy="fastest", clock=clock) as router:
        served = []
        for index in range(5):
            for double in (a, b):
                double.may_generate.clear()
            task = begin(router, str(index))
            await settle()
            clock.now += seconds["a" if a.running else "b"]
            for double in (a, b):
                double.may_generate.set()
            served.append((await task).instance)
    assert served == ["a", "b", "b", "b", "b"]
