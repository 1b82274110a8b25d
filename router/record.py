"""Record: one request as it went. It holds no prompt and no picture."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple, TypeAlias

from router.types import Timings

Warned: TypeAlias = Literal["slow", "low_similarity"]


class Record(NamedTuple):
    """What an operator may know of one request, once it has ended."""

    request_id: str
    began_at: float
    """Seconds since the epoch."""
    code: str
    """Empty if it was served, else that of its error; `cancelled` where the caller gave up."""
    model: str
    task: str
    """Empty for a request that was none: a field was wrong."""
    mode: str
    """What became of the reference picture: `none`, `copy` or `modify`."""
    instance: str
    """Who served it, or tried last; empty if nobody did."""
    backend: str
    attempts: int
    height: int | None
    width: int | None
    steps: int | None
    pictures: int
    """Those that were made."""
    ticks: int
    rows: int
    """As in `GenerateResult`: `rows / ticks` is the mean batch that it shared."""
    workspace_bytes: int
    """Promised to it on its device, beside the weights."""
    peak_bytes: int | None
    """Most that the device has held, where that is known."""
    timings: Timings
    seconds: float
    """In the router, failed attempts included; writing the pictures comes after it."""
    similarity: float | None = None
    """Of the picture least like the reference picture (`router.similarity`); only if configured."""
    warnings: tuple[Warned, ...] = ()
    notes: tuple[str, ...] = ()
    """One sentence for each warning, and those of the result."""


_STAGES = tuple(field.name for field in dataclasses.fields(Timings) if field.name != "encode_s")
"""Those in the router."""


def facts_of(record: Record) -> dict[str, Any]:
    """Plain values, for JSON; seconds to the microsecond."""
    facts = record._asdict()
    timings: Timings = facts.pop("timings")
    for stage in _STAGES:
        facts[stage] = round(getattr(timings, stage), 6)
    facts["seconds"], facts["began_at"] = round(record.seconds, 6), round(record.began_at, 6)
    facts["warnings"], facts["notes"] = list(record.warnings), list(record.notes)
    return facts


def line_of(record: Record) -> dict[str, Any]:
    """The same for a line of the log: what is nothing is left out."""
    return {name: value for name, value in facts_of(record).items() if value}
