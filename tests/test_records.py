"""Records: how each request went, kept, counted, warned of and logged, without its prompt."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from router.config import WatchConfig
from router.errors import GenerateError, InvalidRequestError, ModelNotFoundError, NoRouteError
from router.record import Record, line_of
from router.request_id import REQUEST_ID
from router.router import BackendRouter
from router.server.log import JsonFormatter
from router.types import RawImage
from tests.doubles import PIXELS, SIDE, Clock, Double, begin, broke, router_of, settle
from tests.services import fake_config

GRAY = RawImage(SIDE, SIDE, bytes([128]) * PIXELS * 3)


def newest(router: BackendRouter) -> Record:
    return router.records()[0]


async def test_a_served_request_is_recorded_with_its_stages() -> None:
    a, clock = Double("a"), Clock()
    a.may_load.clear()
    a.may_end.clear()
    async with router_of(a, clock=clock) as router:
        running = begin(router, num_images_per_prompt=2)
        await settle()
        clock.now += 2
        a.may_load.set()
        await settle()
        clock.now += 3
        a.may_end.set()
        await running
        record = newest(router)
    assert (record.code, record.model, record.task, record.mode) == ("", "m", "text-to-image", "none")
    assert (record.instance, record.backend, record.attempts) == ("a", "double", 1)
    assert (record.height, record.width, record.steps, record.pictures) == (SIDE, SIDE, 4, 2)
    assert (record.timings.load_s, record.timings.generate_s, record.seconds) == (2, 3, 5)
    assert record.workspace_bytes > 0


async def test_a_failed_request_is_recorded_as_far_as_it_came() -> None:
    a, b, clock = Double("a"), Double("b"), Clock()
    a.fails, b.fails = broke(), broke()
    async with router_of(a, b, clock=clock) as router:
        with pytest.raises(GenerateError):
            await router.generate(prompt="x")
        record = newest(router)
        assert router.statistics().failed == 1
    assert (record.code, record.instance, record.attempts, record.pictures) == ("generate_failed", "b", 2, 0)
    assert (record.height, record.steps) == (SIDE, 4)


async def test_a_cancelled_request_tells_where_it_was() -> None:
    a, clock = Double("a"), Clock()
    a.may_generate.clear()
    async with router_of(a, clock=clock) as router:
        running = begin(router)
        await settle()
        clock.now += 7
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        record = newest(router)
        assert router.statistics().cancelled == 1
    assert (record.code, record.timings.generate_s, record.seconds) == ("cancelled", 7, 7)


async def test_what_was_no_request_or_found_no_model_is_recorded_too() -> None:
    async with router_of(Double()) as router:
        with pytest.raises(InvalidRequestError):
            await router.generate(prompt="x", height=1)
        assert (newest(router).code, newest(router).task) == ("invalid_request_error", "")
        with pytest.raises(ModelNotFoundError):
            await router.generate(prompt="x", model="none")
        assert (newest(router).code, newest(router).task) == ("model_not_found", "text-to-image")
        with pytest.raises(NoRouteError):
            await router.generate(prompt="x", scheduler="Nope")
        assert (newest(router).code, newest(router).model, newest(router).attempts) == ("no_route", "m", 0)


async def test_the_newest_are_kept_and_no_more() -> None:
    async with router_of(Double(), watch=WatchConfig(records=2)) as router:
        for steps in (1, 2, 3):
            await router.generate(prompt="x", num_inference_steps=steps)
        assert [record.steps for record in router.records()] == [3, 2]
        assert router.statistics().served == 3


async def test_an_id_is_the_callers_or_a_new_one() -> None:
    async with router_of(Double()) as router:
        await router.generate(prompt="x")
        token = REQUEST_ID.set("mine-1")
        await router.generate(prompt="x")
        assert REQUEST_ID.get() == "mine-1"
        REQUEST_ID.reset(token)
        await router.generate(prompt="x")
        ids = [record.request_id for record in router.records()]
    assert ids[1] == "mine-1"
    assert ids[0] != ids[2]


async def test_the_line_in_the_log_holds_all_of_it_and_no_prompt(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "router.requests")
    async with router_of(Double()) as router:
        await router.generate(prompt="a house called Rosebud", image=GRAY)
        record = newest(router)
    (line,) = [each for each in caplog.records if each.name == "router.requests"]
    told = json.loads(JsonFormatter().format(line))
    assert told["message"] == "request ended"
    assert line_of(record).items() <= told.items()
    assert (told["request_id"], told["mode"]) == (record.request_id, "modify")
    assert "Rosebud" not in json.dumps(told)


def test_a_record_has_no_place_for_prompts_and_pictures() -> None:
    assert not set(Record._fields) & {"prompt", "negative_prompt", "request", "result", "image", "images"}


# --- warnings


async def test_a_slow_request_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    a, clock = Double("a"), Clock()
    async with router_of(a, clock=clock, watch=WatchConfig(slow_s=10)) as router:
        for seconds in (10, 11):
            a.may_end.clear()
            running = begin(router)
            await settle()
            clock.now += seconds
            a.may_end.set()
            await running
        slow, quick = router.records()
        assert router.statistics().warnings == {("slow", "m", "a"): 1}
    assert (slow.warnings, quick.warnings) == (("slow",), ())
    assert slow.notes == ("The request took 11.0 s, more than 10 s.",)
    assert [line.levelname for line in caplog.records if line.name == "router.requests"] == ["WARNING"]


@pytest.mark.parametrize(("least", "warned"), [(None, False), (0.0, False), (0.99, True)])
async def test_a_picture_unlike_its_reference_is_warned_of(least: float | None, warned: bool) -> None:
    """The doubles paint black, which has the structure of gray and another brightness."""
    async with router_of(Double("a"), watch=WatchConfig(min_similarity=least)) as router:
        result = await router.generate(prompt="x", image=GRAY)
        record = newest(router)
        counts = router.statistics().warnings
    assert (record.similarity is None) == (least is None)
    assert record.warnings == (("low_similarity",) if warned else ())
    assert result.notes == record.notes
    assert len(result.notes) == warned
    assert all("SSIM 0.00 at 128 pixels, where 0.99 is wanted" in note for note in result.notes)
    assert counts == ({("low_similarity", "m", "a"): 1} if warned else {})


async def test_only_image_to_image_is_compared() -> None:
    async with router_of(Double("a"), watch=WatchConfig(min_similarity=1)) as router:
        await router.generate(prompt="x")
        await router.generate(prompt="x", image=GRAY, mask_image=GRAY)
        assert [record.similarity for record in router.records()] == [None, None]


async def test_ticks_and_rows_are_those_of_the_result() -> None:
    config = fake_config()
    async with BackendRouter(config) as router:
        result = await router.generate(prompt="x", num_inference_steps=3)
        record = newest(router)
    assert (record.ticks, record.rows) == (result.ticks, result.rows) == (3, 6)
