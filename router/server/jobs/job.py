"""Job: one accepted request, as it lies in the store. Draft: one that is not accepted yet."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

State: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled"]
UNFINISHED: tuple[State, ...] = ("queued", "running")

MAX_STARTS = 2
"""A job that was under way whenever the process died is not started a third time."""

COLUMNS = "number, id, owner, state, starts, parameters, created_at, started_at, ended_at, result, error"
"""What `read_row` reads, in this order."""

_ID_BYTES = 16
_RECORD_BYTES = 4096
"""What a job without pictures and parameters takes, generously: so that a flood of empty ones counts."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be accepted: the seed is drawn, the pictures are known to be sound."""

    owner: str
    """Name of the key that sent it; nobody else will see it."""
    parameters: Mapping[str, Any]
    """The JSON body without its pictures and with the seed, which is drawn now."""
    pictures: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """`image`, `mask_image`: the files as they were sent."""
    idempotency_key: str | None = None
    digest: bytes = b""
    """Of the body that was sent, to tell a repetition from another wish under the same key."""
    id: str = field(default_factory=lambda: f"job_{secrets.token_hex(_ID_BYTES)}")

    @property
    def bytes(self) -> int:
        return _RECORD_BYTES + len(json.dumps(self.parameters)) + sum(map(len, self.pictures.values()))


@dataclass(frozen=True, slots=True)
class Job:
    """A row of the store. Times are seconds since the epoch."""

    number: int
    """Order of acceptance; never shown, as it would tell how much others ask for."""
    id: str
    owner: str
    state: State
    starts: int
    """How often it was begun and not ended in order."""
    parameters: Mapping[str, Any]
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    result: Mapping[str, Any] | None = None
    """The facts of the result; its pictures lie beside."""
    error: Mapping[str, Any] | None = None
    """Why it has no pictures, as an error reply would say it."""

    @property
    def is_unfinished(self) -> bool:
        return self.state in UNFINISHED


def latents_place(index: int) -> int:
    """Where the latents of a picture lie among the files of a result: those from 0 on are the pictures."""
    return -1 - index


def read_row(row: Sequence[Any]) -> Job:
    """The job in a row of `COLUMNS`."""
    number, id, owner, state, starts, parameters, created_at, started_at, ended_at, result, error = row
    return Job(
        number,
        id,
        owner,
        state,
        starts,
        json.loads(parameters),
        created_at,
        started_at,
        ended_at,
        result=None if result is None else json.loads(result),
        error=None if error is None else json.loads(error),
    )


def digest_of(body: Mapping[str, Any]) -> bytes:
    """Equal for equal JSON values, whatever their order and spacing were."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
