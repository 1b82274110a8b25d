"""Probing: when instances are asked what they can do, and what a failed probe means to requests."""

from __future__ import annotations

import pytest

from router.backend import BackendFactory
from router.config import BreakerConfig, InstanceConfig, ModelConfig, RouterConfig
from router.errors import (
    BackendUnavailableError,
    ConfigError,
    GenerateError,
    LoadError,
    NoRouteError,
)
from router.router import BackendRouter
from tests.doubles import (
    Clock,
    Double,
    begin,
    broke,
    resolve_to,
    router_of,
    settle,
    until,
)


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
