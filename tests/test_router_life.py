"""The router's own life: entering, leaving, what it says of its instances and what it logs."""

from __future__ import annotations

import asyncio
import logging

import pytest

from router.errors import (
    BackendUnavailableError,
    RouterError,
)
from router.router import BackendRouter
from tests.doubles import (
    Double,
    begin,
    broke,
    config_of,
    resolve_to,
    router_of,
    settle,
    until,
)


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
    assert vars(record)["request_id"] == router.records()[0].request_id
    assert "secret" not in caplog.text
