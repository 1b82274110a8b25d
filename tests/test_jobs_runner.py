"""The runner: which jobs are begun and when, and what becomes of each."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from router.config import Limits
from router.errors import GenerateError, NoRouteError
from router.server.jobs import runner
from router.server.jobs.feed import Progress
from router.server.jobs.job import Job
from router.server.jobs.limits import JobLimits
from router.server.jobs.store import JobStore
from tests.doubles import BROKE, Double, begin
from tests.jobs_doubles import OWNER, draft, ended, jobs_of, picture_text, submit, until_running


@pytest.fixture
def double() -> Double:
    """Its requests wait until the test opens `may_generate`."""
    double = Double()
    double.may_generate.clear()
    return double


async def test_a_job_is_done_with_its_seed_and_pictures(tmp_path: Path) -> None:
    double = Double()
    async with jobs_of(tmp_path, double) as jobs:
        job = await ended(jobs, await submit(jobs, num_images_per_prompt=2))
        assert job.state == "done"
        assert job.result is not None
        assert double.seen[0].seed == job.parameters["seed"] == job.result["seed"]
        assert (await jobs.picture(OWNER, job.id, 1)).startswith(b"\x89PNG")
        assert jobs.progress(job) is None


async def test_the_picture_of_an_edit_reaches_the_backend(tmp_path: Path) -> None:
    double = Double()
    async with jobs_of(tmp_path, double) as jobs:
        await ended(jobs, await submit(jobs, image=picture_text(), strength=0.5))
    assert double.seen[0].task == "image-to-image"
    assert double.seen[0].strength == 0.5


async def test_a_failed_job_says_why(tmp_path: Path) -> None:
    double = Double()
    double.poison = {"bad": GenerateError(BROKE, instance="a")}
    async with jobs_of(tmp_path, double) as jobs:
        bad, good = await submit(jobs, "bad"), await submit(jobs, "good")
        failed = await ended(jobs, bad)
        assert failed.error is not None
        assert (failed.state, failed.error["code"], failed.error["message"]) == (
            "failed",
            "generate_failed",
            BROKE,
        )
        assert (await ended(jobs, good)).state == "done"


async def test_what_nobody_can_serve_is_refused_at_once(tmp_path: Path) -> None:
    async with jobs_of(tmp_path, Double()) as jobs:
        with pytest.raises(NoRouteError):
            await submit(jobs, scheduler="Unknown")
        assert await jobs.page(OWNER, 10, None) == ([], False)


async def test_the_oldest_run_and_the_others_know_their_place(tmp_path: Path, double: Double) -> None:
    async with jobs_of(tmp_path, double, running=2) as jobs:
        submitted = [await submit(jobs, f"{index}") for index in range(4)]
        await until_running(double, 2)
        assert {request.prompt for request in double.seen} == {"0", "1"}
        places = [jobs.progress(job) for job in submitted[2:]]
        assert places == [Progress("queued", 1), Progress("queued", 2)]
        double.may_generate.set()
        assert [(await ended(jobs, job)).state for job in submitted] == ["done"] * 4


async def test_a_running_job_is_cancelled_for_good(tmp_path: Path, double: Double) -> None:
    async with jobs_of(tmp_path, double) as jobs:
        job = await submit(jobs)
        await until_running(double, 1)
        cancelled = await jobs.remove(OWNER, job.id)
        assert cancelled.state == "cancelled"
        await until_running(double, 0)
    async with jobs_of(tmp_path, double) as jobs:
        assert (await jobs.find(OWNER, job.id)).state == "cancelled"
    assert len(double.seen) == 1


async def test_a_waiting_job_is_cancelled_and_the_next_moves_up(tmp_path: Path, double: Double) -> None:
    async with jobs_of(tmp_path, double, running=1) as jobs:
        running, first, second = [await submit(jobs, f"{index}") for index in range(3)]
        await until_running(double, 1)
        await jobs.remove(OWNER, first.id)
        assert jobs.progress(second) == Progress("queued", 1)
        double.may_generate.set()
        for job in (running, second):
            assert (await ended(jobs, job)).state == "done"
        assert "1" not in {request.prompt for request in double.seen}


async def test_jobs_wait_while_others_fill_the_routers_queue(
    tmp_path: Path, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "UNKNOWN_RETRY_S", 0.01)
    limits = Limits(concurrency=1, queue=0)
    async with jobs_of(tmp_path, double, router={"limits": limits}) as jobs:
        other = begin(jobs._router, "other")
        await until_running(double, 1)
        job = await submit(jobs)
        await asyncio.sleep(0.05)  # tries, which count for nothing
        assert [request.prompt for request in double.seen] == ["other"]
        double.may_generate.set()
        await other
        done = await ended(jobs, job)
        assert (done.state, done.starts) == ("done", 1)


async def test_draining_lets_running_jobs_end_and_keeps_the_others(tmp_path: Path, double: Double) -> None:
    async with jobs_of(tmp_path, double, running=1) as jobs:
        running, waiting = await submit(jobs, "a"), await submit(jobs, "b")
        await until_running(double, 1)
        draining = asyncio.create_task(jobs.drain())
        follow = [news async for news in jobs.follow(OWNER, waiting.id)]  # ends, as nothing will come
        assert follow == [Progress("queued", 1)]
        double.may_generate.set()
        await draining
        assert (await jobs.find(OWNER, running.id)).state == "done"
        assert (await jobs.find(OWNER, waiting.id)).state == "queued"
    async with jobs_of(tmp_path, double) as jobs:
        assert (await ended(jobs, waiting)).state == "done"


async def test_a_job_stopped_by_the_end_runs_again_with_its_seed(tmp_path: Path, double: Double) -> None:
    async with jobs_of(tmp_path, double) as jobs:
        job = await submit(jobs, image=picture_text())
        await until_running(double, 1)
    double.may_generate.set()
    async with jobs_of(tmp_path, double) as jobs:
        done = await ended(jobs, job)
    assert (done.state, done.starts) == ("done", 1)
    first, second = double.seen
    assert first == second


async def test_a_suspect_runs_alone(tmp_path: Path, double: Double) -> None:
    """What was under way when the process died may have been the reason."""
    suspects = await asyncio.to_thread(die_with_two_under_way, tmp_path / "jobs.sqlite")
    async with jobs_of(tmp_path, double) as jobs:
        for index, job in enumerate(suspects):
            await until_running(double, 1)
            await asyncio.sleep(0.02)
            assert [request.prompt for request in double.seen] == [f"suspect {n}" for n in range(index + 1)]
            assert double.running == 1
            double.may_generate.set()
            double.may_generate.clear()
            assert (await ended(jobs, job)).state == "done"
        await until_running(double, 1)
        assert double.seen[-1].prompt == "innocent"


async def test_a_result_that_cannot_be_kept_is_a_failure(tmp_path: Path, double: Double) -> None:
    async with jobs_of(tmp_path, double) as jobs:
        job = await submit(jobs)
        await until_running(double, 1)
        await jobs._store.ask(fill_disk)
        double.may_generate.set()
        failed = await ended(jobs, job)
    assert failed.error is not None
    assert (failed.state, failed.error["code"]) == ("failed", "job_store_failed")


def die_with_two_under_way(path: Path) -> list[Job]:
    store = JobStore(path, JobLimits())
    suspects = [store.accept(draft(f"suspect {index}", OWNER))[0] for index in range(2)]
    for job in suspects:
        store.start(job.id)
    store.accept(draft("innocent", OWNER))
    store.close()
    return suspects


def fill_disk(store: JobStore) -> None:
    store._connection.executescript(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON pictures BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
    )
