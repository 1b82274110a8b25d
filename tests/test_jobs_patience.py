"""Jobs whose instance is not available: they wait, let others overtake, and fail when patience ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from router.config import BreakerConfig, InstanceConfig, ModelConfig, RouterConfig
from router.errors import BackendUnavailableError, DeviceLostError, GenerateError
from router.router import BackendRouter
from router.server.jobs import runner
from router.server.jobs.jobs import Jobs
from router.server.jobs.limits import JobLimits
from router.types import Step
from tests.doubles import BROKE, Double
from tests.jobs_doubles import OWNER, ended, jobs_of, submit, until_running

AWAY = "The server is away."


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "UNKNOWN_RETRY_S", 0.005)


async def test_an_open_breaker_does_not_fail_the_jobs_behind_it(tmp_path: Path) -> None:
    double = Double()
    double.poison = {f"bad {index}": GenerateError(BROKE) for index in range(3)}
    breaker = BreakerConfig(failures=3, reset_s=0.1)
    async with jobs_of(tmp_path, double, router={"breaker": breaker}, running=1) as jobs:
        bad = [await submit(jobs, prompt) for prompt in double.poison]
        good = [await submit(jobs, f"good {index}") for index in range(5)]
        assert [(await ended(jobs, job)).state for job in bad] == ["failed"] * 3
        assert [(await ended(jobs, job)).state for job in good] == ["done"] * 5
        assert [(await jobs.find(OWNER, job.id)).starts for job in good] == [1] * 5


async def test_patience_ends(tmp_path: Path) -> None:
    double = Double()
    double.fails = {"load": [BackendUnavailableError(AWAY) for _ in range(1000)]}
    breaker = BreakerConfig(failures=10_000)
    async with jobs_of(tmp_path, double, router={"breaker": breaker}, patience_s=0.1) as jobs:
        failed = await ended(jobs, await submit(jobs))
    assert failed.error is not None
    assert (failed.state, failed.error["code"]) == ("failed", "backend_unavailable")
    assert double.calls.count("load") > 1


async def test_an_instance_that_comes_back_serves_what_waited(tmp_path: Path) -> None:
    double = Double()
    double.fails = {"load": [BackendUnavailableError(AWAY) for _ in range(3)]}
    breaker = BreakerConfig(failures=10_000)
    async with jobs_of(tmp_path, double, router={"breaker": breaker}) as jobs:
        assert (await ended(jobs, await submit(jobs))).state == "done"


async def test_work_that_had_begun_is_not_begun_again(tmp_path: Path) -> None:
    """The job itself may have taken the device down."""
    double = Double()
    double.may_generate.clear()
    double.fails = {"generate": [DeviceLostError("The device fell off the bus.")]}
    async with jobs_of(tmp_path, double) as jobs:
        job = await submit(jobs)
        await until_running(double, 1)
        feed = jobs._runner.feed(job.id)
        assert feed is not None
        feed.hear(Step(0, 1, 4))
        double.may_generate.set()
        failed = await ended(jobs, job)
    assert failed.error is not None
    assert failed.error["code"] == "device_lost"
    assert len(double.seen) == 1


async def test_jobs_of_other_models_overtake(tmp_path: Path) -> None:
    fault = {"at": "load", "error": "backend_unavailable", "times": 0}
    away = InstanceConfig(name="away/fake", backend="fake", options={"faults": [fault]})
    here = InstanceConfig(name="here/fake", backend="fake")
    models = (ModelConfig(name="away", instances=(away,)), ModelConfig(name="here", instances=(here,)))
    config = RouterConfig(models=models, default_model="here")
    limits = JobLimits(running=1)
    async with (
        BackendRouter(config) as router,
        Jobs(tmp_path / "jobs.sqlite", limits, router, lambda result: None) as jobs,
    ):
        waiting = [await submit(jobs, model="away") for _ in range(3)]
        async with asyncio.timeout(10):
            assert (await ended(jobs, await submit(jobs))).state == "done"
        assert {(await jobs.find(OWNER, job.id)).state for job in waiting} <= {"queued", "running"}
