"""A cancelled request: at every stage it ends as cancelled, gives everything back and is no failure."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from router.config import BreakerConfig, Limits
from router.errors import (
    DeadlineExceededError,
    GenerateError,
    RequestCancelledError,
)
from router.request import GenerateRequest
from router.types import (
    Generated,
    Picture,
    RawImage,
)
from tests.doubles import (
    Double,
    begin,
    breakers,
    router_of,
    settle,
)


async def test_cancelled_in_the_queue_it_never_reaches_the_backend() -> None:
    a = Double()
    a.may_generate.clear()
    async with router_of(a, limits=Limits(concurrency=1)) as router:
        first, second = begin(router, "first"), begin(router, "second")
        await settle()
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        a.may_generate.set()
        await first
        await router.generate(prompt="third")
    assert [request.prompt for request in a.seen] == ["first", "third"]


async def test_cancelled_while_loading_the_load_goes_on_for_the_next() -> None:
    a = Double()
    a.may_load.clear()
    async with router_of(a) as router:
        first = begin(router, "first")
        await settle()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = begin(router, "second")
        await settle()
        a.may_load.set()
        await second
    assert a.calls.count("load") == 1
    assert [request.prompt for request in a.seen] == ["second"]


async def test_cancelled_while_generating_the_bytes_are_kept_until_the_work_has_ended() -> None:
    a = Double()
    a.may_generate.clear()
    a.may_end.clear()
    async with router_of(a, device_memory={"gpu": 10_000}) as router:
        task = begin(router)
        await settle()
        held = router.statistics().promised_bytes["gpu"]
        task.cancel()
        await settle()
        assert not task.done()
        assert router.statistics().promised_bytes["gpu"] == held
        a.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert a.running == 0
        assert router.statistics().promised_bytes["gpu"] < held
        a.may_generate.set()
        await router.generate(prompt="next")


@pytest.mark.parametrize(
    "said",
    [RequestCancelledError("Stopped."), GenerateError("The stream broke."), OSError("reset"), None],
    ids=str,
)
async def test_whatever_a_cancelled_backend_makes_of_it_the_request_ends_as_cancelled(
    said: Exception | None,
) -> None:
    class Strange(Double):
        async def generate(self, request: GenerateRequest, *_: Any) -> Generated:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            if said is not None:
                raise said
            return Generated((Picture(0, 1, RawImage(1, 1, b"abc")),))

    a, b = Strange("a"), Double("b")
    async with router_of(a, b, breaker=BreakerConfig(failures=1)) as router:
        task = begin(router)
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(DeadlineExceededError):
            await router.generate(prompt="a", deadline_s=0.01)
        assert b.seen == []
        assert breakers(router) == ["closed", "closed"]


async def test_a_cancelled_request_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    a = Double()
    a.may_generate.clear()
    async with router_of(a, breaker=BreakerConfig(failures=1)) as router:
        for prompt in ("a", "b"):
            task = begin(router, prompt)
            await settle()
            task.cancel()
            await asyncio.wait([task])
        statistics = router.statistics()
        assert (statistics.cancelled, statistics.failed) == (2, 0)
        assert breakers(router) == ["closed"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
