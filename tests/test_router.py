from __future__ import annotations

import asyncio
import contextlib
import logging
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from router.backend import BackendFactory
from router.config import BreakerConfig, InstanceConfig, Limits, ModelConfig, RouterConfig
from router.errors import (
    BackendUnavailableError,
    ConfigError,
    DeadlineExceededError,
    DeviceLostError,
    GenerateError,
    InvalidRequestError,
    LoadError,
    MemoryBudgetError,
    ModelNotFoundError,
    NoRouteError,
    QueueFullError,
    RequestCancelledError,
    RouterError,
)
from router.request import GenerateRequest
from router.router import BackendRouter
from router.types import (
    Completed,
    Footprint,
    Generated,
    GenerateResult,
    Loading,
    Picture,
    Queued,
    RawImage,
    ShapeProfile,
    Step,
)
from tests.doubles import SIDE, Clock, Double, config_of, resolve_to, router_of, settle, until

BROKE = "The graphics card is on fire."


def broke(count: int = 1) -> dict[str, list[BaseException]]:
    return {"generate": [GenerateError(BROKE) for _ in range(count)]}


def breakers(router: BackendRouter) -> list[str]:
    return [status.breaker for status in router.instances()]


def running(router: BackendRouter) -> int:
    return sum(status.running for status in router.instances())


def begin(router: BackendRouter, prompt: str = "a", **fields: Any) -> asyncio.Task[GenerateResult]:
    return asyncio.create_task(router.generate(prompt=prompt, **fields))


# --- one request


async def test_a_request_comes_back_with_everything_needed_to_make_it_again() -> None:
    a = Double()
    async with router_of(a) as router:
        result = await router.generate(prompt="a circle", num_images_per_prompt=2, seed=5)
    assert len(result.images) == 2
    assert result.seeds == (5, 6)
    assert (result.instance, result.backend) == ("a", "double")
    assert result.request == a.seen[0]
    assert (result.request.height, result.request.num_inference_steps) == (SIDE, 4)
    assert [(attempt.instance, attempt.error) for attempt in result.attempts] == [("a", "")]
    assert result.notes == result.adjustments == ()


async def test_a_whole_request_is_taken_as_well_but_not_beside_fields() -> None:
    request = GenerateRequest.of(prompt="a circle", seed=1)
    async with router_of(Double()) as router:
        assert (await router.generate(request)).request.seed == 1
        with pytest.raises(InvalidRequestError, match="not both"):
            await router.generate(request, seed=2)


async def test_without_a_seed_every_request_gets_another() -> None:
    async with router_of(Double()) as router:
        seeds = {(await router.generate(prompt="a")).request.seed for _ in range(5)}
    assert len(seeds) == 5


async def test_encoded_pictures_are_decoded() -> None:
    buffer = BytesIO()
    Image.new("RGB", (SIDE, SIDE), "red").save(buffer, "png")
    a = Double()
    async with router_of(a) as router:
        await router.generate(image=buffer.getvalue(), mask_image=Image.new("L", (SIDE, SIDE)))
        with pytest.raises(InvalidRequestError) as caught:
            await router.generate(prompt="a", image=b"no picture")
    assert a.seen[0].image == RawImage(SIDE, SIDE, b"\xff\x00\x00" * SIDE * SIDE)
    assert a.seen[0].task == "inpainting"
    assert caught.value.param == "image"


async def test_some_pictures_that_fail_do_not_fail_the_others() -> None:
    class Half(Double):
        async def generate(self, request: GenerateRequest, *_: Any) -> Generated:
            image = RawImage(1, 1, b"abc")
            return Generated((Picture(0, 1, error=GenerateError(BROKE)), Picture(1, 2, image)))

    async with router_of(Half()) as router:
        result = await router.generate(prompt="a", num_images_per_prompt=2)
    assert len(result.images) == 1
    assert [str(error) for error in result.errors] == [BROKE]


@pytest.mark.parametrize(
    ("pictures", "sentence"),
    [((), "no picture"), ((Picture(0, 1, error=GenerateError(BROKE)),), BROKE)],
)
async def test_a_result_without_a_picture_is_a_failure(pictures: tuple[Picture, ...], sentence: str) -> None:
    class Empty(Double):
        async def generate(self, request: GenerateRequest, *_: Any) -> Generated:
            return Generated(pictures)

    async with router_of(Empty()) as router:
        with pytest.raises(GenerateError, match=sentence):
            await router.generate(prompt="a")


async def test_what_a_strange_backend_raises_is_an_error_of_the_house() -> None:
    a = Double()
    a.fails["generate"] = [ZeroDivisionError("secret")]
    async with router_of(a) as router:
        with pytest.raises(GenerateError, match="ZeroDivisionError") as caught:
            await router.generate(prompt="a")
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_an_unknown_model_is_told_with_the_known_ones() -> None:
    async with router_of(Double()) as router:
        with pytest.raises(ModelNotFoundError, match=r"'x'.* m"):
            await router.generate(prompt="a", model="x")


async def test_a_request_that_nobody_can_serve_loads_nothing() -> None:
    a = Double()
    async with router_of(a, probed=False) as router:
        with pytest.raises(NoRouteError) as caught:
            await router.generate(prompt="a", height=17)
    assert set(caught.value.rejections) == {"a"}
    assert a.calls == ["probe"]


async def test_a_request_that_can_never_fit_is_refused_before_anything_loads() -> None:
    a = Double(footprint=Footprint(1_000, 1_000, 0))
    async with router_of(a, device_memory={"gpu": 500_000}) as router:
        with pytest.raises(NoRouteError, match="16x16 fits"):
            await router.generate(prompt="a", height=64, width=64)
        assert a.calls == ["probe"]
        await router.generate(prompt="a", height=16, width=16)


# --- failover


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


# --- breakers


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


# --- probing


async def test_instances_are_probed_once_at_the_same_time_on_first_need() -> None:
    a, b = Double("a"), Double("b")
    a.may_probe.clear()
    async with router_of(a, b, probed=False) as router:
        assert a.calls == []
        first, second = begin(router), begin(router)
        await until(lambda: a.calls and b.calls)
        assert a.calls == b.calls == ["probe"]
        first.cancel()
        await settle()
        a.may_probe.set()
        assert (await second).instance == "a"
        assert a.calls.count("probe") == 1


async def test_a_library_that_is_missing_is_one_more_rejection() -> None:
    a, b = Double("a"), Double("b")
    found = resolve_to(a, b)
    names = {"a": "absent", "b": "double"}
    instances = tuple(InstanceConfig(name=name, backend=backend) for name, backend in names.items())
    config = RouterConfig(models=(ModelConfig(name="m", instances=instances),), default_model="m")

    def resolve(name: str) -> BackendFactory:
        if name == "absent":
            raise BackendUnavailableError("Backend 'absent' needs torch; pip install torch.")
        return found(name)

    async with BackendRouter(config, resolve=resolve) as router:
        route = await router.explain(prompt="a")
        assert route.candidates == ("b",)
        assert "pip install torch" in route.rejections["a"]


async def test_the_only_instance_that_fails_its_probe_says_why_in_its_own_class() -> None:
    a = Double()
    a.fails["probe"] = [LoadError("The folder x is missing.")]
    async with router_of(a, probed=False) as router:
        for _ in range(2):
            with pytest.raises(LoadError, match="The folder x is missing"):
                await router.generate(prompt="a")
        assert a.calls == ["probe"]


async def test_a_wrong_request_stays_the_callers_fault_when_the_only_instance_is_away() -> None:
    clock = Clock()
    a = Double()
    a.fails = broke()
    async with router_of(a, clock=clock, breaker=BreakerConfig(failures=1, reset_s=30)) as router:
        with pytest.raises(GenerateError):
            await router.generate(prompt="a")
        clock.now += 30
        a.fails["probe"] = [BackendUnavailableError("The server is down.")]
        with pytest.raises(BackendUnavailableError, match="server is down"):
            await router.generate(prompt="a")
        with pytest.raises(NoRouteError):
            await router.generate(prompt="a", height=17)


async def test_a_wrong_configuration_is_not_passed_over() -> None:
    a, b = Double("a"), Double("b")
    a.fails["probe"] = [ConfigError("There is no option `stepz`.")]
    async with router_of(a, b, probed=False) as router:
        with pytest.raises(ConfigError, match="stepz"):
            await router.generate(prompt="a")


async def test_a_failed_probe_is_repeated_after_a_while() -> None:
    clock = Clock()
    a, b = Double("a"), Double("b")
    a.fails["probe"] = [BackendUnavailableError("The server is down.")]
    async with router_of(a, b, clock=clock, probed=False) as router:
        assert (await router.generate(prompt="a")).instance == "b"
        clock.now += 30
        await router.generate(prompt="a")
        await settle()
        assert (await router.generate(prompt="a")).instance == "a"


async def test_a_probe_that_never_answers_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.instance.PROBE_LIMIT_S", 0.01)
    a, b = Double("a"), Double("b")
    a.may_probe.clear()
    async with router_of(a, b, probed=False) as router:
        assert (await router.generate(prompt="a")).instance == "b"
        assert "did not answer" in (await router.explain(prompt="a")).rejections["a"]


# --- cancelling


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


# --- deadlines


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


# --- stream and explain


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


# --- the router's own life


async def test_it_says_how_its_instances_stand() -> None:
    a, b = Double("a"), Double("b")
    b.fails["probe"] = [BackendUnavailableError("The server is down.")]
    async with router_of(a, b, probed=False) as router:
        assert [status.capabilities for status in router.instances()] == [None, None]
        first, second = await router.probe()
        assert (first.model, first.backend, first.device, first.state) == ("m", "double", "gpu", "cold")
        assert first.capabilities is not None
        assert "The server is down" in second.error
        await router.generate(prompt="a")
        assert router.instances()[0].state == "ready"
        assert router.instances()[0].served == 1
        statistics = router.statistics()
        assert (statistics.running, statistics.served, statistics.failed) == (0, 1, 0)
        assert statistics.promised_bytes == {"gpu": 1_000}


async def test_left_normally_it_lets_running_requests_end_and_unloads() -> None:
    a = Double()
    a.may_generate.clear()
    async with router_of(a) as router:
        task = begin(router)
        await settle()
        asyncio.get_running_loop().call_later(0.02, a.may_generate.set)
    assert len((await task).images) == 1
    assert a.calls[-1] == "unload"


async def test_left_by_an_exception_it_stops_running_requests_and_unloads() -> None:
    a = Double()
    a.may_generate.clear()
    with pytest.raises(KeyError):
        async with router_of(a) as router:
            task = begin(router)
            await settle()
            raise KeyError
    with pytest.raises(asyncio.CancelledError):
        await task
    assert a.calls[-1] == "unload"


async def test_left_while_probing_it_leaves_no_task_behind() -> None:
    a = Double()
    a.may_probe.clear()
    async with router_of(a, probed=False) as router:
        task = begin(router)
        await until(lambda: a.calls == ["probe"])
        task.cancel()
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}


def bare_router() -> BackendRouter:
    return BackendRouter(config_of(Double()), resolve=resolve_to(Double()))


async def test_before_and_after_it_refuses_with_a_sentence() -> None:
    router = bare_router()
    with pytest.raises(RouterError, match="async with"):
        await router.generate(prompt="a")
    async with router:
        with pytest.raises(RouterError, match="entered before"):
            await router.__aenter__()
    with pytest.raises(RouterError, match="closed"):
        await router.generate(prompt="a")


def test_it_belongs_to_the_loop_it_was_entered_on() -> None:
    router = bare_router()
    asyncio.run(router.__aenter__())
    with pytest.raises(RouterError, match="another event loop"):
        asyncio.run(router.generate(prompt="a"))


async def test_failures_are_logged_with_an_id_and_without_the_prompt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    a, b = Double("a"), Double("b")
    a.fails = broke()
    async with router_of(a, b) as router:
        await router.generate(prompt="my secret wish")
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert (vars(record)["instance"], vars(record)["code"]) == ("a", "generate_failed")
    assert vars(record)["request_id"] == 1
    assert "secret" not in caplog.text


# --- with the shipped fake, on a real lane


def fake_config(**options: Any) -> RouterConfig:
    instance = InstanceConfig(name="m/fake", backend="fake", options=options)
    return RouterConfig(models=(ModelConfig(name="m", instances=(instance,)),), default_model="m")


async def test_the_fake_serves_many_at_once_in_common_ticks() -> None:
    async with BackendRouter(fake_config(step_s=0.002)) as router:
        results = await asyncio.gather(
            *[router.generate(prompt=f"{index}", num_inference_steps=2 + index) for index in range(6)]
        )
        lane = router.statistics().lanes["cpu"]
    assert [result.ticks for result in results] == [2, 3, 4, 5, 6, 7]
    assert lane.ticks < 2 + 3 + 4 + 5 + 6 + 7
    assert running(router) == 0


async def test_the_fake_stops_at_its_next_step_when_cancelled() -> None:
    async with BackendRouter(fake_config(step_s=0.005)) as router:
        task = begin(router, num_inference_steps=150)
        while not (lanes := router.statistics().lanes) or not lanes["cpu"].ticks:  # noqa: ASYNC110 -- a thread's
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        lane = router.statistics().lanes["cpu"]
        assert lane.running == 0
        assert lane.ticks < 100
        await router.generate(prompt="next")


async def test_a_planted_fault_fails_one_request_and_the_next_is_served() -> None:
    faults = [{"at": "step", "error": "generate_failed", "prompt": "bad"}]
    async with BackendRouter(fake_config(faults=faults)) as router:
        good, bad = await asyncio.gather(
            router.generate(prompt="good"), router.generate(prompt="bad"), return_exceptions=True
        )
        assert isinstance(good, GenerateResult)
        assert isinstance(bad, GenerateError)
        await router.generate(prompt="bad")


async def test_lanes_end_with_the_router() -> None:
    import threading

    async with BackendRouter(fake_config()) as router:
        await router.generate(prompt="a")
        assert "lane cpu" in {thread.name for thread in threading.enumerate()}
    assert "lane cpu" not in {thread.name for thread in threading.enumerate()}
