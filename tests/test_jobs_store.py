"""The store of the jobs: what is accepted stays, each state follows from the one before, limits hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.errors import GenerateError, QueueFullError
from router.server.errors import NotFoundError
from router.server.jobs.errors import IdempotencyError, JobStoreError
from router.server.jobs.limits import JobLimits
from router.server.jobs.store import JobStore
from tests.doubles import Clock
from tests.jobs_doubles import draft

BROKE = GenerateError("It broke.")


def open_store(folder: Path, clock: Clock | None = None, **limits: Any) -> JobStore:
    return JobStore(folder / "jobs.sqlite", JobLimits(**limits), clock or Clock())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = open_store(tmp_path)
    yield store
    store.close()


def done(store: JobStore, picture: bytes = b"picture", **fields: Any) -> str:
    job, _ = store.accept(draft(**fields))
    store.start(job.id)
    assert store.finish(job.id, {"seeds": [7]}, {0: picture})
    return job.id


def test_a_job_goes_from_queued_to_done(store: JobStore) -> None:
    job, is_new = store.accept(draft(pictures={"image": b"start"}))
    assert (job.state, is_new, job.starts) == ("queued", True, 0)
    started = store.start(job.id)
    assert started is not None
    assert started[0].state == "running"
    assert started[1] == {"image": b"start"}
    assert store.finish(job.id, {"seeds": [7]}, {0: b"first", 2: b"third"})
    found = store.find("alice", job.id)
    assert (found.state, found.result, found.starts) == ("done", {"seeds": [7]}, 1)
    assert store.result("alice", job.id, 2) == b"third"
    with pytest.raises(NotFoundError, match="no such picture"):
        store.result("alice", job.id, 1)


def test_a_job_starts_once_at_a_time(store: JobStore) -> None:
    job, _ = store.accept(draft())
    assert store.start(job.id)
    assert store.start(job.id) is None
    store.give_back(job.id)
    assert store.find("alice", job.id).starts == 0
    assert store.start(job.id)


def test_what_comes_too_late_changes_nothing(store: JobStore) -> None:
    job, _ = store.accept(draft())
    store.start(job.id)
    cancelled, ended = store.cancel("alice", job.id)
    assert (cancelled.state, ended) == ("cancelled", True)
    assert not store.finish(job.id, {}, {0: b"late"})
    assert not store.fail(job.id, BROKE)
    store.give_back(job.id)
    assert store.find("alice", job.id) == cancelled
    assert store.cancel("alice", job.id) == (cancelled, False)
    assert store.waiting() == []


def test_a_failed_job_keeps_its_reason(store: JobStore) -> None:
    job, _ = store.accept(draft())
    store.start(job.id)
    assert store.fail(job.id, BROKE)
    error = store.find("alice", job.id).error
    assert error is not None
    assert (error["code"], error["message"]) == ("generate_failed", "It broke.")


def test_the_input_pictures_go_when_the_job_has_ended(store: JobStore) -> None:
    job, _ = store.accept(draft(pictures={"image": b"x" * 100_000}))
    store.start(job.id)
    store.finish(job.id, {}, {0: b"result"})
    kept = store._connection.execute("SELECT role FROM pictures").fetchall()
    assert kept == [("result",)]
    [(bytes,)] = store._connection.execute("SELECT bytes FROM jobs")
    assert bytes < 10_000


def test_jobs_wait_in_the_order_of_acceptance(store: JobStore) -> None:
    ids = [store.accept(draft(f"{index}"))[0].id for index in range(3)]
    store.start(ids[0])
    store.give_back(ids[0])
    assert [job.id for job in store.waiting()] == ids


def test_a_job_is_its_owners_alone(store: JobStore) -> None:
    id = done(store)
    for ask in (store.find, store.cancel, store.remove):
        with pytest.raises(NotFoundError):
            ask("bob", id)
    with pytest.raises(NotFoundError):
        store.result("bob", id, 0)
    assert store.page("bob", 10) == ([], False)
    assert store.find(None, id).id == id  # the holder of a signed link


def test_pages_come_newest_first(store: JobStore) -> None:
    ids = [store.accept(draft(f"{index}"))[0].id for index in range(5)]
    store.accept(draft(owner="bob"))
    first, more = store.page("alice", 2)
    assert ([job.id for job in first], more) == ([ids[4], ids[3]], True)
    rest, more = store.page("alice", 3, after=first[-1].id)
    assert ([job.id for job in rest], more) == ([ids[2], ids[1], ids[0]], False)


def test_a_repetition_is_the_first_job(store: JobStore) -> None:
    first, _ = store.accept(draft(idempotency_key="k", digest=b"1"))
    again, is_new = store.accept(draft(idempotency_key="k", digest=b"1"))
    assert (again, is_new) == (first, False)
    with pytest.raises(IdempotencyError, match="another body"):
        store.accept(draft(idempotency_key="k", digest=b"2"))
    other, is_new = store.accept(draft(owner="bob", idempotency_key="k", digest=b"2"))
    assert is_new
    assert other.id != first.id
    assert len(store.waiting()) == 2


def test_only_ended_jobs_are_removed(store: JobStore) -> None:
    job, _ = store.accept(draft())
    store.remove("alice", job.id)
    assert store.find("alice", job.id)
    store.cancel("alice", job.id)
    store.remove("alice", job.id)
    with pytest.raises(NotFoundError):
        store.find("alice", job.id)


def test_no_more_wait_than_may(tmp_path: Path) -> None:
    store = open_store(tmp_path, waiting=2)
    first, _ = store.accept(draft(idempotency_key="k"))
    store.accept(draft())
    with pytest.raises(QueueFullError, match="2 jobs wait"):
        store.accept(draft())
    assert store.accept(draft(idempotency_key="k"))[0] == first  # a repetition takes no place
    store.start(first.id)
    store.accept(draft())
    store.close()


def test_ended_jobs_make_room_the_oldest_first(tmp_path: Path) -> None:
    clock = Clock()
    store = open_store(tmp_path, clock, bytes=50_000)
    ids = []
    for _ in range(3):
        clock.now += 1
        ids.append(done(store, picture=b"x" * 15_000))
    kept = [job.id for job in store.page("alice", 10)[0]]
    assert kept == [ids[2], ids[1]]
    with pytest.raises(QueueFullError, match="fill the store"):
        store.accept(draft(pictures={"image": b"x" * 60_000}))
    assert len(store.page("alice", 10)[0]) == 2
    store.close()


def test_old_jobs_are_removed_but_never_unfinished_ones(tmp_path: Path) -> None:
    clock = Clock()
    store = open_store(tmp_path, clock, age_s=100)
    done(store)
    waiting, _ = store.accept(draft())
    clock.now += 101
    store.trim()
    assert [job.id for job in store.page("alice", 10)[0]] == [waiting.id]
    store.close()


def test_removed_bytes_go_back_to_the_disk(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    id = done(store, picture=b"x" * 3_000_000)
    store.remove("alice", id)
    store.close()
    assert (tmp_path / "jobs.sqlite").stat().st_size < 200_000


def test_a_full_disk_is_said_and_nothing_is_accepted(store: JobStore) -> None:
    store._connection.execute("PRAGMA max_page_count = 30")
    with pytest.raises(JobStoreError, match="cannot be used now"):
        store.accept(draft(pictures={"image": b"x" * 1_000_000}))
    assert store.waiting() == []
    assert store.accept(draft())[1]
