"""A process to kill: it accepts jobs for ever, or serves them until all have ended, and says what it did."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from backends._lane import Report
from backends.fake import FakeBackend
from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.request import GenerateRequest
from router.router import BackendRouter
from router.server.jobs.job import Draft
from router.server.jobs.jobs import Jobs
from router.server.jobs.limits import JobLimits
from router.server.jobs.store import JobStore
from router.types import GenerateResult, RawImage

OWNER = "alice"
STEP_S = 0.01


class DeadlyBackend(FakeBackend):
    """The fake, but for one prompt that kills the process as a bad driver would."""

    def picture(self, request: GenerateRequest, seed: int, report: Report) -> RawImage:
        made = super().picture(request, seed, report)
        if "deadly" in request.prompt:
            os.kill(os.getpid(), signal.SIGKILL)
        return made


def fake_config(backend: str = "fake") -> RouterConfig:
    instance = InstanceConfig(name="demo/fake", backend=backend, options={"step_s": STEP_S})
    return RouterConfig(models=(ModelConfig(name="demo", instances=(instance,)),), default_model="demo")


def say(*words: object) -> None:
    print(*words, flush=True)


def accept_for_ever(path: Path) -> None:
    """Says the id of each job after its acceptance; begins some, and finishes some of these."""
    store = JobStore(path, JobLimits(waiting=1_000_000))
    index = 0
    while True:
        index += 1
        drafted = Draft(OWNER, {"prompt": f"{index}", "seed": index}, {"image": os.urandom(9_000)})
        job, _ = store.accept(drafted)
        say("accepted", job.id, index)
        if index % 2:
            store.start(job.id)
        if index % 6 == 1:
            store.finish(job.id, {"seed": index}, {0: f"picture {index}".encode()})
            say("done", job.id, index)


def serve(path: Path, running: str, most: str = "1000") -> None:
    """Says the seed of each result that was kept; ends when none is left to do, stands still after `most`."""
    asyncio.run(_serve(path, int(running), int(most)))


async def _serve(path: Path, running: int, most: int) -> None:
    kept = 0

    def on_result(result: GenerateResult) -> None:
        nonlocal kept
        kept += 1
        say("done", result.request.seed)
        if kept == most:
            time.sleep(60)  # until it is killed, with other jobs under way

    config = fake_config("tests.job_process:DeadlyBackend")
    limits = JobLimits(running=running)
    async with BackendRouter(config) as router, Jobs(path, limits, router, on_result) as jobs:
        page, _ = await jobs.page(OWNER, 1000, None)
        for job in page:
            async for _ in jobs.follow(OWNER, job.id):
                pass


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
