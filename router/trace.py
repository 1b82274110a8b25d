"""Trace: which requests shared which tick, as a timeline that ui.perfetto.dev and chrome://tracing open.

The lanes note their ticks while they work, the router each request as it ends; the file is made of
that at the very end. Its form is Chrome's "Trace Event Format", a JSON object with `traceEvents`:
a tick is a complete event (`X`) of its lane's thread, a request a row of nestable asynchronous ones
(`b`, `e`). It holds no prompt.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from router.request_id import REQUEST_ID

if TYPE_CHECKING:
    from router.call import Call
    from router.task import Task

MOST = 100_000
"""Ticks, and requests, that are kept: the newest. A tick takes some 300 bytes in memory and in the file."""

_PROCESS = 1
_STAGES = ("text", "steps", "decode")

Event: TypeAlias = dict[str, Any]


class Share(NamedTuple):
    """One picture's part in a tick."""

    number: int
    """Of its task, counted over all lanes."""
    request_id: str
    rows: int


class Tick(NamedTuple):
    number: int
    """Counted from 0 on, over all lanes."""
    lane: str
    stage: str
    key: int
    began: float
    """Seconds on the clock of `time.perf_counter`, as all times here."""
    ended: float
    shares: tuple[Share, ...]

    @property
    def rows(self) -> int:
        return sum(share.rows for share in self.shares)


class Span(NamedTuple):
    """A part of a request's time; what it holds lies within it."""

    name: str
    began: float
    ended: float
    depth: int
    facts: Mapping[str, Any]


class Request(NamedTuple):
    """One request: the whole first, then its stages."""

    request_id: str
    spans: tuple[Span, ...]


class Trace:
    """Notes ticks from any thread; holds the newest, and says how many it has let go."""

    def __init__(self, path: Path, most: int = MOST) -> None:
        self.path = path
        self.error = ""
        """Why the file could not be written; empty if it was, or has not been tried."""
        self._ticks: deque[Tick] = deque(maxlen=most)
        self._requests: deque[Request] = deque(maxlen=most)
        self._tick_numbers = itertools.count()
        self._task_numbers = itertools.count(1)

    def tick(
        self, lane: str, began: float, ended: float, tasks: Sequence[Task[Any]], calls: Sequence[Call]
    ) -> None:
        """On a lane's thread: these calls ran as one."""
        for task in tasks:
            task.number = task.number or next(self._task_numbers)
        shares = [
            Share(task.number, task.setting.get(REQUEST_ID, ""), call.rows)
            for task, call in zip(tasks, calls, strict=True)
        ]
        stage = getattr(calls[0].gather, "stage", _STAGES[1])
        number, key = next(self._tick_numbers), hash(calls[0].key)
        self._ticks.append(Tick(number, lane, stage, key, began, ended, tuple(shares)))

    def request(self, request: Request) -> None:
        """On the event loop: a request has ended."""
        self._requests.append(request)

    def write(self) -> None:
        """The file appears whole, in the place of an older one, or `error` says why not. Blocks."""
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            partial.write_text(json.dumps(self.document(), separators=(",", ":")), encoding="utf-8")
            partial.replace(self.path)
        except OSError as exc:
            self.error = f"The trace {self.path} cannot be written ({exc.strerror}); choose another place."
        finally:
            with suppress(OSError):
                partial.unlink()

    def document(self) -> dict[str, Any]:
        """The trace in Chrome's form. Times are microseconds from the first event on."""
        ticks, requests = list(self._ticks), list(self._requests)
        began = [tick.began for tick in ticks] + [request.spans[0].began for request in requests]
        zero = min(began, default=0.0)
        lanes = {lane: number for number, lane in enumerate(dict.fromkeys(tick.lane for tick in ticks), 1)}
        events = [
            *_names(lanes),
            *(_tick_event(tick, lanes[tick.lane], zero) for tick in ticks),
            *itertools.chain.from_iterable(_request_events(requests, ticks, zero)),
        ]
        let_go = ticks[0].number if ticks else 0
        facts = {"ticks": len(ticks), "ticks_let_go": let_go, "requests": len(requests)}
        return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": facts}


def _names(lanes: Mapping[str, int]) -> Iterator[Event]:
    """What the viewer calls the rows."""
    yield {"ph": "M", "name": "process_name", "pid": _PROCESS, "tid": 0, "args": {"name": "triptych"}}
    for lane, thread in lanes.items():
        place = {"pid": _PROCESS, "tid": thread}
        yield {"ph": "M", "name": "thread_name", **place, "args": {"name": f"lane {lane}"}}
        yield {"ph": "M", "name": "thread_sort_index", **place, "args": {"sort_index": thread}}


def _tick_event(tick: Tick, thread: int, zero: float) -> Event:
    return {
        "ph": "X",
        "name": f"{tick.stage} {tick.rows}",
        "cat": "tick",
        "pid": _PROCESS,
        "tid": thread,
        "ts": _microseconds(tick.began - zero),
        "dur": _microseconds(tick.ended - tick.began),
        "args": {
            "stage": tick.stage,
            "rows": tick.rows,
            "pictures": len(tick.shares),
            "requests": [share.request_id for share in tick.shares],
            "rows_of_each": [share.rows for share in tick.shares],
            "key": f"{tick.key & 0xFFFFFFFF:08x}",
        },
    }


def _request_events(
    requests: Iterable[Request], ticks: Iterable[Tick], zero: float
) -> Iterator[Iterable[Event]]:
    """A row for each request with its first picture, and one for each further picture."""
    pictures = _pictures_of(ticks)
    rows = itertools.count(1)
    for request in requests:
        whole = request.spans[0]
        mine = [
            spans
            for spans in pictures.get(request.request_id, [])
            if whole.began <= spans[0].began and spans[-1].ended <= whole.ended
        ]
        first, *others = mine or [[]]
        yield _row([*request.spans, *first], next(rows), zero)
        for number, spans in enumerate(others, start=2):
            facts = {"request": request.request_id}
            picture = Span(f"picture {number}", spans[0].began, spans[-1].ended, 0, facts)
            yield _row([picture, *spans], next(rows), zero)


def _pictures_of(ticks: Iterable[Tick]) -> dict[str, list[list[Span]]]:
    """Request id -> for each of its pictures the stages, in their order."""
    times: dict[tuple[str, int], dict[str, tuple[float, float]]] = {}
    for tick in ticks:
        for share in tick.shares:
            stages = times.setdefault((share.request_id, share.number), {})
            began, _ = stages.get(tick.stage, (tick.began, 0.0))
            stages[tick.stage] = began, tick.ended
    found: dict[str, list[list[Span]]] = {}
    for (request_id, _), stages in sorted(times.items()):
        spans = [Span(stage, began, ended, 2, {}) for stage, (began, ended) in stages.items()]
        found.setdefault(request_id, []).append(spans)
    return found


def _row(spans: Sequence[Span], row: int, zero: float) -> list[Event]:
    """Begin and end of each span; of those at the same time, ends come first and wholes are outside."""
    timed = []
    for span in spans:
        place = {"id2": {"local": f"0x{row:x}"}, "pid": _PROCESS, "tid": 0}  # of this process, not of all
        shared = {"cat": "request", "name": span.name, **place}
        began, ended = _microseconds(span.began - zero), _microseconds(span.ended - zero)
        if ended > began:
            timed.append((began, 1, span.depth, {"ph": "b", **shared, "ts": began, "args": dict(span.facts)}))
            timed.append((ended, 0, -span.depth, {"ph": "e", **shared, "ts": ended}))
    return [event for *_, event in sorted(timed, key=lambda each: each[:3])]


def _microseconds(seconds: float) -> float:
    return round(seconds * 1e6, 3)
