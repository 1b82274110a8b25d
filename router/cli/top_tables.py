"""The tables of `triptych top`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from router.server.stand import DeviceState, InstanceState, LaneState, RecordDocument, Statistics

_BAR = 20
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_SHOWN_ID = 16


def tables_of(
    statistics: Statistics, before: Statistics | None, records: Sequence[RecordDocument]
) -> Iterator[RenderableType]:
    """`before` is an earlier look, that rates are told since; without it they are of all its life."""
    yield Text(_summary(statistics))
    yield _table("Instances", _INSTANCE, [_instance(each) for each in statistics.instances])
    lanes = {lane.name: lane for lane in before.lanes} if before else {}
    seconds = statistics.at - (before.at if before else statistics.started_at)
    rows = [_lane(lane, lanes.get(lane.name), seconds) for lane in statistics.lanes]
    yield _table("Lanes", _LANE, rows)
    yield _table("Memory promised", _DEVICE, [_device(each) for each in statistics.devices])
    yield _table("Newest requests", _REQUEST, [_request(each) for each in records])


def _summary(statistics: Statistics) -> str:
    names = ("running", "served", "failed", "cancelled")
    counts = ", ".join(f"{getattr(statistics, name)} {name}" for name in names)
    jobs = f"jobs: {statistics.jobs_running} running, {statistics.jobs_waiting} waiting"
    return f"up {_duration(statistics.at - statistics.started_at)} · {counts} · {jobs}"


_INSTANCE = ("Instance", "State", "Running", "Waiting", "Served", "Failed", "s/request", "Health")


def _instance(status: InstanceState) -> list[str | Text]:
    healthy = "healthy" if status.breaker == "closed" else f"breaker {status.breaker}"
    error = status.error
    health = Text(error, style="red") if error else Text(healthy, style="green")
    numbers = [f"{count}" for count in (status.running, status.waiting, status.served, status.failed)]
    return [status.name, status.state, *numbers, _number(status.request_s), health]


_LANE = ("Lane", "Ticks/s", "Rows/tick", "Busy", "Tasks", "At a call")


def _lane(lane: LaneState, before: LaneState | None, seconds: float) -> list[str | Text]:
    ticks = lane.ticks - (before.ticks if before else 0)
    rows = lane.rows - (before.rows if before else 0)
    busy_s = lane.busy_s - (before.busy_s if before else 0.0)
    if lane.lost:
        return [lane.name, Text(lane.lost, style="red")]
    return [
        lane.name,
        _number(ticks / seconds if seconds > 0 else None),
        _number(rows / ticks if ticks else None),
        f"{min(1.0, busy_s / seconds):.0%}" if seconds > 0 else "",
        f"{lane.running}",
        f"{lane.waiting}",
    ]


_DEVICE = ("Device", "", "Promised", "Of")


def _device(device: DeviceState) -> list[str | Text]:
    promised, budget = device.promised_bytes, device.budget_bytes
    filled = round(_BAR * min(1.0, promised / budget)) if budget else 0
    bar = "█" * filled + "░" * (_BAR - filled)
    return [device.name, bar, _bytes(promised), _bytes(budget) if budget else "unlimited"]


_REQUEST = ("At", "Request", "Instance", "Task", "Size", "Steps", "Pictures", "Rows/tick", "s", "Outcome")


def _request(record: RecordDocument) -> list[str | Text]:
    task = record.task + (f" ({record.mode})" if record.mode != "none" else "")
    size = f"{record.width}x{record.height}" if record.width and record.height else ""
    shared = record.rows / record.ticks if record.ticks else None
    return [
        time.strftime("%H:%M:%S", time.localtime(record.began_at)),
        record.request_id[:_SHOWN_ID],
        record.instance or record.model,
        task,
        size,
        f"{record.steps or ''}",
        f"{record.pictures}",
        _number(shared),
        f"{record.seconds:.2f}",
        _outcome(record),
    ]


def _outcome(record: RecordDocument) -> Text:
    if record.code:
        return Text(record.code, style="red")
    warnings = ", ".join(record.warnings).replace("_", " ")
    return Text(warnings, style="yellow") if warnings else Text("served", style="green")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column not in ("Health", "Ticks/s"))
    for row in rows:
        table.add_row(*[Text(cell) if isinstance(cell, str) else cell for cell in row])
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _bytes(count: int) -> str:
    return next((f"{count / unit:.1f} {name}" for unit, name in _UNITS if count >= unit), f"{count} B")


def _duration(seconds: float) -> str:
    minutes, hours = int(seconds // 60) % 60, int(seconds // 3600)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {int(seconds % 60)} s"
