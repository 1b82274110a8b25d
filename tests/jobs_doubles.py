"""Jobs for a test: drafts, jobs over a double whose stages wait for the test, jobs over HTTP."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from backends._lane import Report
from backends.fake import FakeBackend
from router import images
from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.request import GenerateRequest
from router.server.jobs.job import Draft, Job
from router.server.jobs.jobs import Jobs
from router.server.jobs.limits import JobLimits
from router.server.jobs.submission import read
from router.types import GenerateResult, RawImage
from tests.doubles import SIDE, Double, router_of
from tests.pictures import painted
from tests.services import Service

OWNER = "alice"


def draft(prompt: str = "a circle", owner: str = OWNER, **fields: Any) -> Draft:
    return Draft(owner, {"prompt": prompt, "seed": 7}, **fields)


@contextlib.asynccontextmanager
async def jobs_of(
    folder: Path, double: Double, *, router: dict[str, Any] | None = None, **limits: Any
) -> AsyncIterator[Jobs]:
    """Left, the running jobs are stopped and the store is closed. `router` are settings of its config."""
    results: list[GenerateResult] = []
    path = folder / "jobs.sqlite"
    async with (
        router_of(double, **router or {}) as entered,
        Jobs(path, JobLimits(**limits), entered, results.append) as jobs,
    ):
        yield jobs


async def submit(jobs: Jobs, prompt: str = "a", **fields: Any) -> Job:
    draft, request = await asyncio.to_thread(read, OWNER, {"prompt": prompt, **fields}, None, 10_000)
    assert isinstance(request, GenerateRequest)
    job, _ = await jobs.submit(draft, request)
    return job


async def ended(jobs: Jobs, job: Job) -> Job:
    """The job when it has ended."""
    async with asyncio.timeout(10):
        last = [news async for news in jobs.follow(OWNER, job.id)][-1]
    assert isinstance(last, Job)
    return last


async def until_running(double: Double, count: int) -> None:
    """Until so many requests are in the hands of the backend."""
    for _ in range(5_000):
        if double.running == count:
            return
        await asyncio.sleep(0.002)
    raise AssertionError(f"{double.running} requests run, not {count}")


def picture_text() -> str:
    return base64.b64encode(images.encode(painted(SIDE, SIDE))).decode()


class PreviewingBackend(FakeBackend):
    """The fake with a preview at each step: noise that hardly compresses, after a byte, the step's index."""

    def picture(self, request: GenerateRequest, seed: int, report: Report) -> RawImage:
        def with_preview(index: int, total: int, _: RawImage | None) -> None:
            noise = random.Random(index).randbytes(64 * 64 * 3 - 1)
            report(index, total, RawImage(64, 64, bytes([index]) + noise))

        return super().picture(request, seed, with_preview)


def previewing_config(**options: Any) -> RouterConfig:
    instance = InstanceConfig(
        name="demo/fake", backend="tests.jobs_doubles:PreviewingBackend", options=options
    )
    return RouterConfig(models=(ModelConfig(name="demo", instances=(instance,)),), default_model="demo")


# Over HTTP.


def submitted(service: Service, prompt: str = "a circle", **fields: Any) -> dict[str, Any]:
    reply = service.post("/v1/jobs", prompt=prompt, **fields)
    assert reply.status_code == 202, reply.text
    return reply.json()


def until(service: Service, job: dict[str, Any], *states: str) -> dict[str, Any]:
    ends = time.monotonic() + 10
    while (found := service.http.get(job["url"]).json())["state"] not in states:
        assert time.monotonic() < ends, found
        time.sleep(0.005)
    return found
