"""Failover: which errors send a request to the next instance, with which seed, and how often."""

from __future__ import annotations

import asyncio

import pytest

from router.config import BreakerConfig, Limits
from router.errors import (
    BackendUnavailableError,
    DeviceLostError,
    GenerateError,
    InvalidRequestError,
    LoadError,
    MemoryBudgetError,
    QueueFullError,
    RouterError,
)
from tests.doubles import (
    BROKE,
    Double,
    begin,
    breakers,
    broke,
    router_of,
    settle,
)


async def test_failover_asks_the_next_for_exactly_the_same_picture() -> None:
    a, b = Double("a"), Double("b")
    a.fails = broke()
    async with router_of(a, b) as router:
        result = await router.generate(prompt="a circle", num_images_per_prompt=2)
    assert a.seen == b.seen == [result.request]
    assert result.request.seed is not None
    assert result.instance == "b"
    assert [(each.instance, each.code) for each in result.attempts] == [("a", "generate_failed"), ("b", "")]
    assert result.attempts[0].error == BROKE
    assert result.notes == ("a could not serve (generate_failed); b did.",)


@pytest.mark.parametrize(
    ("stage", "error"),
    [
        ("load", LoadError("The file is cut off.")),
        ("load", BackendUnavailableError("The server is down.")),
        ("generate", BackendUnavailableError("The server is down.")),
        ("generate", DeviceLostError("The device is gone.")),
    ],
)
async def test_failover_also_from(stage: str, error: RouterError) -> None:
    a, b = Double("a"), Double("b")
    a.fails[stage] = [error]
    async with router_of(a, b) as router:
        result = await router.generate(prompt="a")
    assert result.instance == "b"
    assert result.attempts[0].code == error.code


async def test_when_every_candidate_fails_the_last_error_is_raised() -> None:
    a, b = Double("a"), Double("b")
    a.fails, b.fails = broke(), {"generate": [GenerateError("Another fault.")]}
    async with router_of(a, b) as router:
        with pytest.raises(GenerateError, match="Another fault") as caught:
            await router.generate(prompt="a")
        assert caught.value.instance == "b"
        assert (await router.generate(prompt="a")).instance == "a"


async def test_a_request_fails_over_so_often_and_no_more() -> None:
    doubles = [Double(name) for name in "abcd"]
    for double in doubles:
        double.fails = broke()
    async with router_of(*doubles, max_failovers=2) as router:
        with pytest.raises(GenerateError):
            await router.generate(prompt="a")
    assert [len(double.seen) for double in doubles] == [1, 1, 1, 0]


async def test_the_users_error_is_not_tried_again_elsewhere() -> None:
    a, b = Double("a"), Double("b")
    a.fails["generate"] = [InvalidRequestError("Such a prompt has no meaning.", param="prompt")]
    async with router_of(a, b) as router:
        with pytest.raises(InvalidRequestError):
            await router.generate(prompt="a")
    assert b.seen == []


async def test_out_of_memory_goes_to_another_device_only_and_opens_no_breaker() -> None:
    a, b, c = Double("a"), Double("b"), Double("c", device="gpu:1")
    a.fails["generate"] = [MemoryBudgetError("Full.") for _ in range(4)]
    async with router_of(a, b, c, breaker=BreakerConfig(failures=1)) as router:
        result = await router.generate(prompt="a")
        assert result.instance == "c"
        assert b.seen == []
        assert breakers(router) == ["closed"] * 3


async def test_out_of_memory_on_the_only_device_is_told_and_the_next_is_served() -> None:
    a, b = Double("a"), Double("b")
    a.fails["generate"] = [MemoryBudgetError("Full.")]
    async with router_of(a, b) as router:
        with pytest.raises(MemoryBudgetError):
            await router.generate(prompt="a")
        assert (await router.generate(prompt="a")).instance == "a"


async def test_a_full_queue_sends_the_request_on() -> None:
    a, b = Double("a"), Double("b")
    a.may_generate.clear()
    async with router_of(a, b, limits=Limits(concurrency=1, queue=0)) as router:
        first = begin(router)
        await settle()
        result = await router.generate(prompt="b")
        assert result.instance == "b"
        b.may_generate.clear()
        second = begin(router)
        await settle()
        with pytest.raises(QueueFullError):
            await router.generate(prompt="c")
        a.may_generate.set()
        b.may_generate.set()
        await asyncio.gather(first, second)
        assert breakers(router) == ["closed", "closed"]
