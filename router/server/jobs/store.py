"""JobStore: the jobs on disk, and every way in which one changes its state. Blocks; it lives on one thread.

    queued -> running -> done | failed        give_back: running -> queued
    queued | running -> cancelled

Each method is one transaction, on the disk when it returns. A change that comes too late (a result
for a cancelled job) changes nothing and says so.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from router.errors import QueueFullError, RouterError
from router.server.errors import NotFoundError, body_of
from router.server.jobs.database import open_database, transaction
from router.server.jobs.errors import IdempotencyError, JobStoreError, ProcessEndedError
from router.server.jobs.job import COLUMNS, MAX_STARTS, Draft, Job, read_row
from router.server.jobs.limits import JobLimits
from router.server.links import WallClock

log = logging.getLogger("router.server")

RESULT = "result"
_KILLED = ProcessEndedError(
    f"The service died {MAX_STARTS} times while this job was under way, so that it is not started again."
)
_UNFINISHED = "ended_at IS NULL"


class JobStore:
    """Made, used and closed by one thread. Of a job that is another owner's it says that there is none."""

    def __init__(self, path: Path, limits: JobLimits, clock: WallClock = time.time) -> None:
        """Opens the file and settles what a dead process left under way. Raises `ConfigError`."""
        self._limits = limits
        self._clock = clock
        self._connection = open_database(path)
        with self._changing():
            self._end("state = 'running' AND starts >= ?", (MAX_STARTS,), "failed", _KILLED)
            self._execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")
            self._trim()

    def close(self) -> None:
        self._connection.close()

    # What clients ask.

    def earlier(self, draft: Draft) -> Job | None:
        """The job of the same key and body. Raises `IdempotencyError` for another body."""
        with self._reading():
            return self._earlier(draft)

    def accept(self, draft: Draft) -> tuple[Job, bool]:
        """The job, and whether it is new: the same key and body give the job of the first time.

        Raises `IdempotencyError` for another body, `QueueFullError` where no more may wait.
        """
        with self._changing():
            earlier = self._earlier(draft)
            if earlier is not None:
                return earlier, False
            self._check_room(draft)
            number = self._insert(draft)
            self._trim(keep=number)
            return self._one("number = ?", number), True

    def find(self, owner: str | None, id: str) -> Job:
        """Raises `NotFoundError`. `None` as owner is whoever holds a link to the job."""
        with self._reading():
            return self._owned(owner, id)

    def page(self, owner: str, limit: int, after: str | None = None) -> tuple[Sequence[Job], bool]:
        """Newest first, those older than the job `after`; and whether there are more."""
        with self._reading():
            before = self._owned(owner, after).number if after else 2**62
            where = "owner = ? AND number < ? ORDER BY number DESC LIMIT ?"
            jobs = self._select(where, owner, before, limit + 1)
        return jobs[:limit], len(jobs) > limit

    def result(self, owner: str | None, id: str, place: int) -> bytes:
        """The file of one picture, or of the latents at `latents_place`. Raises `NotFoundError`."""
        with self._reading():
            job = self._owned(owner, id)
            found = self._pictures(job.number, "AND role = ? AND place = ?", RESULT, place)
        if not found:
            raise NotFoundError("That job has no such picture; its `images` lists those that it has.")
        return found[0][2]

    def cancel(self, owner: str, id: str) -> tuple[Job, bool]:
        """The job, and whether this ended it; one that had ended before stays as it is."""
        with self._changing():
            number = self._owned(owner, id).number
            ended = self._end(f"number = ? AND {_UNFINISHED}", (number,), "cancelled")
            return self._one("number = ?", number), bool(ended)

    def remove(self, owner: str, id: str) -> None:
        """Forget an ended job and its pictures."""
        with self._changing():
            number = self._owned(owner, id).number
            self._delete(f"number = ? AND NOT ({_UNFINISHED})", number)

    # What the runner does.

    def waiting(self) -> Sequence[Job]:
        """Oldest first."""
        with self._reading():
            return self._select("state = 'queued' ORDER BY number")

    def start(self, id: str) -> tuple[Job, Mapping[str, bytes]] | None:
        """The job, now running, and the pictures to start from; `None` if it does not wait any more."""
        with self._changing():
            started = self._execute(
                "UPDATE jobs SET state = 'running', starts = starts + 1, started_at = ?"
                " WHERE id = ? AND state = 'queued'",
                self._clock(),
                id,
            )
            if not started.rowcount:
                return None
            job = self._one("id = ?", id)
            return job, {role: data for role, _, data in self._pictures(job.number)}

    def give_back(self, id: str) -> bool:
        """The job waits again, in its old place; this start does not count. `False` if it was not running."""
        with self._changing():
            given_back = self._execute(
                "UPDATE jobs SET state = 'queued', starts = starts - 1, started_at = NULL"
                " WHERE id = ? AND state = 'running'",
                id,
            )
            return bool(given_back.rowcount)

    def finish(self, id: str, result: Mapping[str, Any], pictures: Mapping[int, bytes]) -> Job | None:
        """Keep the result, by the pictures' places; `None` if the job was not running any more."""
        with self._changing():
            if not self._end("id = ? AND state = 'running'", (id,), "done"):
                return None
            job = self._one("id = ?", id)
            rows = [(job.number, RESULT, place, data) for place, data in pictures.items()]
            self._connection.executemany("INSERT INTO pictures VALUES (?, ?, ?, ?)", rows)
            text = json.dumps(result)
            size = len(text) + sum(map(len, pictures.values()))
            self._execute(
                "UPDATE jobs SET result = ?, bytes = bytes + ? WHERE number = ?", text, size, job.number
            )
            self._trim(keep=job.number)
            return self._one("number = ?", job.number)

    def fail(self, id: str, error: RouterError) -> Job | None:
        """`None` if the job had ended before."""
        with self._changing():
            ended = self._end(f"id = ? AND {_UNFINISHED}", (id,), "failed", error)
            return self._one("id = ?", id) if ended else None

    def trim(self) -> None:
        """Remove what is too old, and the oldest of what is too much."""
        with self._changing():
            self._trim()

    # Inside a transaction.

    def _earlier(self, draft: Draft) -> Job | None:
        if draft.idempotency_key is None:
            return None
        given = (draft.owner, draft.idempotency_key)
        rows = self._execute("SELECT id, digest FROM jobs WHERE owner = ? AND idempotency_key = ?", *given)
        for id, digest in rows.fetchall():
            if digest != draft.digest:
                raise IdempotencyError(
                    "This `Idempotency-Key` came before with another body; use a new key for a new job.",
                    param="Idempotency-Key",
                )
            return self._one("id = ?", id)
        return None

    def _check_room(self, draft: Draft) -> None:
        """Only what is unfinished is in the way: ended jobs make room."""
        [(bytes,)] = self._execute(f"SELECT coalesce(sum(bytes), 0) FROM jobs WHERE {_UNFINISHED}")
        [(waiting,)] = self._execute("SELECT count(*) FROM jobs WHERE state = 'queued'")
        if waiting >= self._limits.waiting:
            raise QueueFullError(f"{waiting} jobs wait, which is as many as may wait; come again later.")
        if bytes + draft.bytes > self._limits.bytes:
            raise QueueFullError("The jobs that wait fill the store; come again later, or send less.")

    def _insert(self, draft: Draft) -> int:
        values = (
            draft.id,
            draft.owner,
            json.dumps(draft.parameters),
            draft.idempotency_key,
            draft.digest,
            draft.bytes,
            self._clock(),
        )
        names = "id, owner, parameters, idempotency_key, digest, bytes, created_at"
        number = self._execute(f"INSERT INTO jobs ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)", *values).lastrowid
        assert number is not None
        rows = [(number, role, 0, data) for role, data in draft.pictures.items()]
        self._connection.executemany("INSERT INTO pictures VALUES (?, ?, ?, ?)", rows)
        return number

    def _end(self, where: str, given: Sequence[object], state: str, error: RouterError | None = None) -> int:
        """How many jobs this ended. Nobody needs the pictures any more that they started from."""
        freed = "SELECT coalesce(sum(length(data)), 0) FROM pictures WHERE job = number"
        said = None if error is None else json.dumps(body_of(error)["error"])
        ended = self._execute(
            f"UPDATE jobs SET state = ?, ended_at = ?, error = ?, bytes = bytes - ({freed})"
            f" WHERE {where} RETURNING number",
            state,
            self._clock(),
            said,
            *given,
        ).fetchall()
        self._connection.executemany("DELETE FROM pictures WHERE job = ?", ended)
        return len(ended)

    def _trim(self, keep: int = 0) -> None:
        """`keep` is the job that this is done for."""
        self._delete("ended_at <= ?", self._clock() - self._limits.age_s)
        [(bytes,)] = self._execute("SELECT coalesce(sum(bytes), 0) FROM jobs")
        oldest = "ended_at IS NOT NULL AND number <> ? ORDER BY ended_at LIMIT 1"
        while bytes > self._limits.bytes:
            found = self._execute(f"SELECT number, bytes FROM jobs WHERE {oldest}", keep).fetchone()
            if found is None:
                break
            bytes -= found[1]
            self._delete("number = ?", found[0])

    def _delete(self, where: str, *given: object) -> None:
        self._execute(f"DELETE FROM jobs WHERE {where}", *given)

    def _owned(self, owner: str | None, id: str) -> Job:
        found = self._select("id = ?", id)
        if not found or owner not in (None, found[0].owner):
            raise NotFoundError("There is no such job; it was never accepted, or it was removed since.")
        return found[0]

    def _one(self, where: str, *given: object) -> Job:
        [job] = self._select(where, *given)
        return job

    def _select(self, where: str, *given: object) -> list[Job]:
        return [read_row(row) for row in self._execute(f"SELECT {COLUMNS} FROM jobs WHERE {where}", *given)]

    def _pictures(self, number: int, where: str = "", *given: object) -> list[tuple[str, int, bytes]]:
        chosen = f"SELECT role, place, data FROM pictures WHERE job = ? {where}"
        return self._execute(chosen, number, *given).fetchall()

    def _execute(self, statement: str, *given: object) -> sqlite3.Cursor:
        return self._connection.execute(statement, given)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._reading(), transaction(self._connection):
            yield

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            log.error("the store of the jobs: %s", exc)
            raise JobStoreError(
                "The store of the jobs cannot be used now; its operator finds the reason in the log."
            ) from exc
