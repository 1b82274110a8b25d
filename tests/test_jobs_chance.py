"""The runner under chance: jobs handed in, cancelled, refused and stopped at any moment, all end once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from router.config import Limits
from router.errors import GenerateError, QueueFullError
from router.server.errors import NotFoundError
from router.server.jobs import runner
from router.server.jobs.feed import News
from router.server.jobs.job import Job
from router.server.jobs.jobs import Jobs
from tests.doubles import BROKE, Double, begin
from tests.jobs_doubles import OWNER, jobs_of, submit

JOBS = 60
ENDS = {"done", "failed", "cancelled"}


class Hasty(Double):
    """Takes a moment, of chance, for every request."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.poison = {"bad": GenerateError(BROKE)}
        self._chance = chance

    async def _reach(self, stage: str, gate: asyncio.Event) -> None:
        for _ in range(self._chance.randrange(6)):
            await asyncio.sleep(0)
        await super()._reach(stage, gate)


@pytest.mark.parametrize("seed", range(6))
async def test_every_job_ends_once_and_nothing_is_left(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "UNKNOWN_RETRY_S", 0.001)
    chance = random.Random(seed)
    double = Hasty(chance)
    accepted: list[Job] = []
    for _ in range(3):  # orderly ends between, with jobs under way
        limits = Limits(concurrency=2, queue=chance.randrange(3))
        async with jobs_of(tmp_path, double, router={"limits": limits}, running=chance.randint(1, 8)) as jobs:
            accepted += await act(jobs, chance)
    async with jobs_of(tmp_path, double) as jobs:
        told = await asyncio.gather(*[all_news(jobs, job) for job in accepted])
        ended = [await jobs.find(OWNER, job.id) for job in accepted]
        assert not jobs._runner._feeds
        assert not jobs._runner._waiting
    assert not jobs._runner._running
    assert {job.state for job in ended} <= ENDS
    assert [news[-1] for news in told] == ended
    for job in ended:
        assert job.starts <= 1, "an orderly end counts for nothing"
        assert (job.result is not None) == (job.state == "done")
        assert (job.error is not None) == (job.state == "failed")
        assert (job.state != "done") or job.parameters["prompt"] != "bad"


async def act(jobs: Jobs, chance: random.Random) -> list[Job]:
    accepted, others = [], []
    for index in range(JOBS // 3):
        accepted.append(await submit(jobs, "bad" if chance.random() < 0.1 else f"{index}"))
        if chance.random() < 0.2:
            with contextlib.suppress(NotFoundError):  # it was removed before
                await jobs.remove(OWNER, chance.choice(accepted).id)
        if chance.random() < 0.3:
            others.append(begin(jobs._router))  # takes places in the router's queue
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert all(not isinstance(each, Exception) or isinstance(each, QueueFullError) for each in outcomes)
    found, _ = await jobs.page(OWNER, 1000, None)
    return [job for job in found if job.id in {each.id for each in accepted}]


async def all_news(jobs: Jobs, job: Job) -> list[News]:
    async with asyncio.timeout(20):
        return [news async for news in jobs.follow(OWNER, job.id)]
