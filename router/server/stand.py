"""How a service stands and how its requests went: the forms that it answers in and `triptych top` reads."""

from __future__ import annotations

from pydantic import BaseModel


class InstanceState(BaseModel):
    name: str
    model: str
    backend: str
    device: str
    state: str
    breaker: str
    error: str
    """Why it cannot be used now; empty if it can."""
    running: int
    waiting: int
    served: int
    failed: int
    request_s: float | None
    """Measured seconds of one request."""


class LaneState(BaseModel):
    name: str
    ticks: int
    rows: int
    occupancy: float
    """Mean rows of a tick."""
    busy_s: float
    running: int
    waiting: int
    lost: str
    """Why its device takes no more work; empty while it does."""


class DeviceState(BaseModel):
    name: str
    promised_bytes: int
    budget_bytes: int | None
    """What may be promised; `null` is unlimited."""


class Statistics(BaseModel):
    version: str
    at: float
    """Seconds since the epoch, as of all times here."""
    started_at: float
    running: int
    served: int
    failed: int
    cancelled: int
    jobs_waiting: int
    jobs_running: int
    instances: list[InstanceState]
    lanes: list[LaneState]
    devices: list[DeviceState]


class RecordDocument(BaseModel):
    """One request. There is no prompt and no picture in it."""

    request_id: str
    began_at: float
    code: str
    """Empty if it was served, else that of its error."""
    model: str
    task: str
    mode: str
    instance: str
    backend: str
    attempts: int
    height: int | None
    width: int | None
    steps: int | None
    pictures: int
    ticks: int
    rows: int
    workspace_bytes: int
    peak_bytes: int | None
    seconds: float
    route_s: float
    enhance_s: float
    queued_s: float
    load_s: float
    generate_s: float
    similarity: float | None
    warnings: list[str]
    notes: list[str]


class Records(BaseModel):
    records: list[RecordDocument]
    """The newest first."""
