"""kill -9 at any moment: every job that was accepted is there, once, and with what it had become."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from router import images
from router.router import BackendRouter
from router.server.jobs.job import MAX_STARTS, Draft, Job
from router.server.jobs.limits import JobLimits
from router.server.jobs.store import JobStore
from router.types import RawImage
from tests.job_process import OWNER, fake_config

ROOT = Path(__file__).parent.parent


def killed(*arguments: object, after: Callable[[str], bool]) -> list[list[str]]:
    """The words that a process said before it was killed: when `after` said yes, or by itself."""
    command = [sys.executable, "-m", "tests.job_process", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said: list[str] = []
        for line in process.stdout:
            said.append(line)
            if after(line):
                os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return [line.split() for line in said if line.endswith("\n")]


@pytest.mark.parametrize("accepted", [1, 30, 137])
def test_what_was_accepted_is_there_after_kill_9(tmp_path: Path, accepted: int) -> None:
    path = tmp_path / "jobs.sqlite"
    said = killed("accept_for_ever", path, after=lambda line: line.split()[-1] == f"{accepted}")
    store = JobStore(path, JobLimits())
    found = {job.id: job for job in store.page(OWNER, 1_000_000)[0]}
    told = {id: int(index) for word, id, index in said if word == "accepted"}
    assert len(told) >= accepted
    assert found.keys() >= told.keys()
    assert len(found) <= len(told) + 1  # one may have been accepted and not yet told
    for word, id, index in said:
        assert found[id].parameters["seed"] == int(index)
        if word == "done":
            assert found[id].state == "done"
            assert store.result(OWNER, id, 0) == f"picture {index}".encode()
    unfinished = [job.id for job in found.values() if job.state != "done"]
    assert [job.id for job in store.waiting()] == sorted(unfinished, key=lambda id: found[id].number)
    for id in unfinished:
        started = store.start(id)
        assert started is not None
        assert len(started[1]["image"]) == 9_000
    store.close()


def test_unfinished_jobs_run_again_with_the_same_seed_and_finished_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    seeds = accept_all(path, [f"prompt {index}" for index in range(9)])
    done = {int(words[1]) for words in killed("serve", path, 3, 4, after=Nth(4))}
    assert len(done) == 4
    before = results(path)
    assert before.keys() >= {id for id, seed in seeds.items() if seed in done}
    again = run("serve", path, 3)
    after = results(path)
    assert after.keys() == seeds.keys()
    assert {id: after[id] for id in before} == before
    assert sorted([*done, *again]) == sorted(set([*done, *again]))  # none was kept twice
    kept = {id: images.decode(file) for id, file in after.items()}
    assert kept == asyncio.run(pictures_of(path))


def test_a_job_that_kills_the_process_fails_and_takes_no_other_with_it(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    seeds = accept_all(path, ["before", "deadly", "after", "later"])
    for _ in range(MAX_STARTS):
        killed("serve", path, 8, after=lambda line: False)
    run("serve", path, 8)
    store = JobStore(path, JobLimits())
    states = {job.parameters["prompt"]: (job.state, job.starts) for job in map(found(store), seeds)}
    deadly = next(job for job in map(found(store), seeds) if job.state == "failed")
    store.close()
    assert {prompt: state for prompt, (state, _) in states.items()} == {
        "before": "done",
        "deadly": "failed",
        "after": "done",
        "later": "done",
    }
    assert states["deadly"][1] == MAX_STARTS
    assert deadly.error is not None
    assert deadly.error["code"] == "process_ended"
    assert deadly.error["message"].startswith("The service died 2 times while this job was under way")


def test_an_orderly_end_does_not_count_as_a_start(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    (id,) = accept_all(path, ["a circle"])
    for _ in range(5):
        store = JobStore(path, JobLimits())
        assert store.start(id)
        assert store.give_back(id)
        store.close()
    store = JobStore(path, JobLimits())
    assert store.find(OWNER, id).state == "queued"
    store.close()


class Nth:
    """Says yes to the nth line."""

    def __init__(self, count: int) -> None:
        self._left = count

    def __call__(self, line: str) -> bool:
        self._left -= 1
        return not self._left


def accept_all(path: Path, prompts: list[str]) -> dict[str, int]:
    """Id -> seed."""
    store = JobStore(path, JobLimits())
    seeds = {}
    for seed, prompt in enumerate(prompts, start=100):
        job, _ = store.accept(Draft(OWNER, {"prompt": prompt, "seed": seed}))
        seeds[job.id] = seed
    store.close()
    return seeds


def run(*arguments: object) -> list[int]:
    """The seeds of the results that a process kept, which came to its end by itself."""
    command = [sys.executable, "-m", "tests.job_process", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [int(line.split()[1]) for line in done.stdout.splitlines()]


def results(path: Path) -> dict[str, bytes]:
    """Id -> picture, of the jobs that are done."""
    store = JobStore(path, JobLimits())
    jobs, _ = store.page(OWNER, 1000)
    kept = {job.id: store.result(OWNER, job.id, 0) for job in jobs if job.state == "done"}
    store.close()
    return kept


def found(store: JobStore) -> Callable[[str], Job]:
    return lambda id: store.find(OWNER, id)


async def pictures_of(path: Path) -> dict[str, RawImage]:
    """What the pictures should be, made here from the stored parameters."""
    store = JobStore(path, JobLimits())
    jobs, _ = store.page(OWNER, 1000)
    store.close()
    async with BackendRouter(fake_config()) as router:
        made = await asyncio.gather(*[router.generate(**job.parameters) for job in jobs])
    return {job.id: result.images[0] for job, result in zip(jobs, made, strict=True)}
