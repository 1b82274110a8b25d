"""The deadline of a request: it may pass at every stage, and the router serves on."""

from __future__ import annotations

import pytest

from router.config import Limits
from router.errors import (
    DeadlineExceededError,
)
from tests.doubles import (
    Double,
    begin,
    breakers,
    broke,
    router_of,
    running,
    settle,
)


async def test_the_deadline_passes_while_probing() -> None:
    a = Double()
    a.may_probe.clear()
    async with router_of(a, probed=False) as router:
        with pytest.raises(DeadlineExceededError, match="probed"):
            await router.generate(prompt="a", deadline_s=0.02)
        a.may_probe.set()
        await router.generate(prompt="a", deadline_s=60.0)


async def test_the_deadline_passes_while_queued() -> None:
    a = Double()
    a.may_generate.clear()
    async with router_of(a, limits=Limits(concurrency=1)) as router:
        first = begin(router)
        await settle()
        with pytest.raises(DeadlineExceededError, match="queued"):
            await router.generate(prompt="b", deadline_s=0.02)
        a.may_generate.set()
        await first
        await router.generate(prompt="c", deadline_s=60.0)


async def test_the_deadline_passes_while_loading() -> None:
    a = Double()
    a.may_load.clear()
    async with router_of(a) as router:
        with pytest.raises(DeadlineExceededError, match="loading"):
            await router.generate(prompt="a", deadline_s=0.02)
        a.may_load.set()
        await router.generate(prompt="b", deadline_s=60.0)
    assert a.calls.count("load") == 1


async def test_the_deadline_passes_while_generating_and_the_work_has_ended() -> None:
    a = Double()
    a.may_generate.clear()
    async with router_of(a) as router:
        with pytest.raises(DeadlineExceededError, match="generating"):
            await router.generate(prompt="a", deadline_s=0.02)
        assert a.running == 0
        assert running(router) == 0
        assert breakers(router) == ["closed"]
        a.may_generate.set()
        await router.generate(prompt="b", deadline_s=60.0)


async def test_the_deadline_of_the_config_holds_where_the_request_names_none() -> None:
    a = Double()
    a.may_generate.clear()
    async with router_of(a, deadline_s=0.02) as router:
        with pytest.raises(DeadlineExceededError):
            await router.generate(prompt="a")


async def test_the_deadline_holds_over_all_attempts() -> None:
    a, b = Double("a"), Double("b")
    a.fails = broke()
    b.may_generate.clear()
    async with router_of(a, b) as router:
        with pytest.raises(DeadlineExceededError, match=r"generating \(b\)"):
            await router.generate(prompt="a", deadline_s=0.05)
