"""kill -9 at any moment: every job that was accepted is there, once, and with what it had become."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from router.server.jobs.job import MAX_STARTS
from router.server.jobs.limits import JobLimits
from router.server.jobs.store import JobStore
from tests.test_jobs_store import draft

ROOT = Path(__file__).parent.parent


def killed(*arguments: object, after: Callable[[str], bool]) -> list[list[str]]:
    """The words that a process said until `after` said yes and it was killed."""
    command = [sys.executable, "-m", "tests.job_process", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said: list[str] = []
        for line in process.stdout:
            said.append(line)
            if after(line):
                os.kill(process.pid, signal.SIGKILL)
                said += process.stdout  # what it had said before it died
                break
    assert process.returncode == -signal.SIGKILL
    return [line.split() for line in said if line.endswith("\n")]


@pytest.mark.parametrize("accepted", [1, 30, 137])
def test_what_was_accepted_is_there_after_kill_9(tmp_path: Path, accepted: int) -> None:
    path = tmp_path / "jobs.sqlite"
    said = killed("accept_for_ever", path, after=lambda line: line.split()[-1] == f"{accepted}")
    store = JobStore(path, JobLimits())
    found = {job.id: job for job in store.page("alice", 1_000_000)[0]}
    told = {id: int(index) for word, id, index in said if word == "accepted"}
    assert len(told) >= accepted
    assert found.keys() >= told.keys()
    assert len(found) <= len(told) + 1  # one may have been accepted and not yet told
    for word, id, index in said:
        assert found[id].parameters["seed"] == int(index)
        if word == "done":
            assert found[id].state == "done"
            assert store.result("alice", id, 0) == f"picture {index}".encode()
    unfinished = [job.id for job in found.values() if job.state != "done"]
    assert [job.id for job in store.waiting()] == sorted(unfinished, key=lambda id: found[id].number)
    for id in unfinished:
        started = store.start(id)
        assert started is not None
        assert len(started[1]["image"]) == 9_000
    store.close()


def test_a_job_that_kills_the_process_is_started_twice_at_most(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    store = JobStore(path, JobLimits())
    job, _ = store.accept(draft(pictures={"image": b"start"}))
    bystander, _ = store.accept(draft())
    for started in range(1, MAX_STARTS + 1):
        assert store.start(job.id)
        store.close()  # without any word on how it ended
        store = JobStore(path, JobLimits())
        assert store.find("alice", job.id).starts == started
    ended = store.find("alice", job.id)
    assert ended.state == "failed"
    assert ended.error is not None
    assert ended.error["message"].startswith("The service died 2 times while this job was under way")
    assert [job.id for job in store.waiting()] == [bystander.id]
    store.close()


def test_an_orderly_end_does_not_count_as_a_start(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    store = JobStore(path, JobLimits())
    job, _ = store.accept(draft())
    for _ in range(5):
        assert store.start(job.id)
        store.give_back(job.id)
        store.close()
        store = JobStore(path, JobLimits())
    assert store.find("alice", job.id).state == "queued"
    store.close()
