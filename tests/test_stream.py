"""The stream of one request: its events in order, its end, and a reader who leaves early."""

from __future__ import annotations

import contextlib

import pytest

from router.config import Limits
from router.errors import (
    GenerateError,
    InvalidRequestError,
)
from router.types import (
    Completed,
    Loading,
    Queued,
    Step,
)
from tests.doubles import (
    Double,
    begin,
    broke,
    router_of,
    settle,
)


async def test_a_stream_tells_every_stage_and_ends_with_the_result() -> None:
    a = Double()
    a.may_load.clear()
    async with router_of(a, limits=Limits(concurrency=1)) as router:
        first = begin(router)
        await settle()
        stream = router.stream(prompt="b", num_images_per_prompt=2)
        events = [await anext(stream)]
        a.may_load.set()
        await first
        events += [event async for event in stream]
    assert events[0] == Queued("a", 1)
    assert events[1] == Step(0, 1, 1)
    assert isinstance(events[-1], Completed)
    assert len(events[-1].result.images) == 2


async def test_a_stream_says_that_the_model_loads() -> None:
    async with router_of(Double()) as router:
        events = [event async for event in router.stream(prompt="a")]
    assert events[0] == Loading("a")


async def test_a_stream_left_early_cancels_the_request() -> None:
    a = Double()
    a.may_generate.clear()
    async with router_of(a) as router:
        async with contextlib.aclosing(router.stream(prompt="a")) as stream:
            async for event in stream:
                assert event == Loading("a")
                await settle()
                assert a.running == 1
                break
        assert a.running == 0
        assert router.statistics().cancelled == 1


async def test_a_stream_raises_what_generate_raises() -> None:
    a = Double()
    a.fails = broke()
    async with router_of(a) as router:
        with pytest.raises(GenerateError):
            async for _ in router.stream(prompt="a"):
                pass
        with pytest.raises(InvalidRequestError):
            await anext(router.stream(prompt=""))
