"""Hub: what a lane's thread does. Start tasks, gather their calls, tick, let them go on.

A task is plain blocking code in a greenlet. Where it would run the heavy model it hands the call
over and waits; when every task waits, the hub *ticks*: it takes the oldest call (an urgent one first),
adds the others of the same key, runs them as one, and gives each task its part. So requests of different
step counts, guidance and arrival times share runs, and a new arrival waits one run, not one picture.

The hub knows neither torch nor pictures: a call has a key and a row count, and a `Gather` runs many.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from greenlet import getcurrent, greenlet

from router.call import Call
from router.errors import DeviceLostError, GenerateError, RequestCancelledError
from router.task import Task
from router.trace import Trace

Post: TypeAlias = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Shared:
    """The ticks that a task took part in, and all rows of those ticks, its neighbours' included."""

    ticks: int
    rows: int


class Hub:
    """Lives on the lane's thread; the event loop reads its counters and nothing else."""

    def __init__(
        self,
        name: str,
        inbox: queue.SimpleQueue[Task[Any] | None],
        post: Post,
        trace: Trace | None = None,
    ) -> None:
        self.name = name
        self.waiting: deque[Task[Any]] = deque()
        self.ticks = 0
        self.rows = 0
        self.busy_s = 0.0
        self.lost = ""
        """Why the device takes no more work; empty while it does."""
        self._inbox = inbox
        self._post = post
        self._trace = trace
        self._arrived: deque[Task[Any]] = deque()
        self._started: set[Task[Any]] = set()
        self._alone: set[Hashable] = set()
        self._learned_limits: dict[Hashable, int] = {}
        self._current: Task[Any] | None = None
        self._outcome: tuple[Any, BaseException | None] | None = None
        self._spare: list[greenlet] = []
        self._thread = 0

    @property
    def running(self) -> int:
        """Tasks that have been started and have not ended."""
        return len(self._started)

    # Inside a task.

    def call(self, call: Call) -> Any:
        """Wait until a tick has run this call, and return its part."""
        task = self._task_here()
        if task is None:
            return call.gather([call])[0]
        hash(call.key)  # raises here, in the task whose key it is
        task.call = call
        return self._greenlet.switch()

    def shared(self) -> Shared:
        task = self._task_here()
        return Shared(task.ticks, task.rows) if task else Shared(0, 0)

    def check_stop(self) -> None:
        task = self._task_here()
        if task and task.stop_error:
            raise task.stop_error

    def _task_here(self) -> Task[Any] | None:
        return self._current if threading.get_ident() == self._thread else None

    # Between tasks.

    def live(self) -> None:
        """The thread's whole life, until a `None` arrives."""
        self._thread = threading.get_ident()
        self._greenlet = getcurrent()
        while self._receive():
            try:
                self._start_arrivals()
                self._stop_stopped()
                if self.waiting:
                    self._tick()
            except Exception as exc:  # noqa: BLE001 -- keys that cannot be compared, or a defect of ours
                self._fail(exc)
        self._end_all(RequestCancelledError(f"The lane of device {self.name!r} was closed."))

    def _receive(self) -> bool:
        """Take what has arrived; block only when there is nothing else to do. False: end."""
        idle = not self.waiting and all([task.alone in self._alone for task in self._arrived])
        while idle or not self._inbox.empty():
            task = self._inbox.get()  # nobody else takes from it
            if task is None:
                return False
            self._arrived.append(task)
            idle = False
        return True

    def _start_arrivals(self) -> None:
        for _ in range(len(self._arrived)):
            task = self._arrived.popleft()
            if self.lost and task.stop_error is None:
                task.stop_error = DeviceLostError(self.lost)
            if task.stop_error is not None:
                self._post(task.deliver, None, task.stop_error)
            elif task.alone in self._alone:
                self._arrived.append(task)
            else:
                self._start(task)

    def _start(self, task: Task[Any]) -> None:
        if task.alone is not None:
            self._alone.add(task.alone)
        task.greenlet = self._spare.pop() if self._spare else greenlet(self._run_tasks)
        task.greenlet.gr_context = task.setting
        self._started.add(task)
        self._resume(task, task.greenlet.switch)

    def _stop_stopped(self) -> None:
        """Throw its error into every waiting task that is to stop."""
        for _ in range(len(self.waiting)):
            task = self.waiting.popleft()
            if task.stop_error is None:
                self.waiting.append(task)
            else:
                self._resume(task, task.running.throw, task.stop_error)

    def _run_tasks(self) -> None:
        """A greenlet's life, one task after the other: a new one for each costs two system calls."""
        while True:
            self._run_current()
            self._greenlet.switch()  # hands nothing over: a waiting greenlet would keep it alive

    def _run_current(self) -> None:
        assert self._current is not None
        try:
            self._outcome = self._current.function(), None
        except BaseException as exc:  # noqa: BLE001 -- it belongs to whoever awaits the task
            self._outcome = None, exc

    def _resume(self, task: Task[Any], switch: Callable[..., Any], *arguments: Any) -> None:
        """Let a task run until its next call, where it waits again, or until its end."""
        self._current, task.call = task, None
        switch(*arguments)
        outcome, self._outcome, self._current = self._outcome, None, None
        if outcome is None:
            self.waiting.append(task)
        else:
            self._end(task, *outcome)

    def _end(self, task: Task[Any], value: Any, error: BaseException | None) -> None:
        self._started.discard(task)
        self._alone.discard(task.alone)
        task.running.gr_context = None
        self._spare.append(task.running)
        task.greenlet = None
        if isinstance(error, DeviceLostError):
            self._lose(error)
        self._post(task.deliver, value, error)

    def _tick(self) -> None:
        """Run the next call together with those of its key, and let their tasks go on."""
        tasks, calls = self._take()
        started = time.perf_counter()
        outcomes = self._run(calls)
        ended = time.perf_counter()
        self.busy_s += ended - started
        if self._trace is not None:
            self._trace.tick(self.name, started, ended, tasks, calls)
        rows = sum(call.rows for call in calls)
        self.ticks += 1
        self.rows += rows
        for task, (result, error) in zip(tasks, outcomes, strict=True):
            task.ticks += 1
            task.rows += rows
            if error is not None:
                self._resume(task, task.running.throw, type(error), error, error.__traceback__)
            else:
                self._resume(task, task.running.switch, result)

    def _take(self) -> tuple[list[Task[Any]], list[Call]]:
        """The call whose turn it is, then, oldest first, those of its key that the row limit admits."""
        first = self._take_first()
        call = first.waiting_call
        room = self._row_limit(call) - call.rows
        tasks, calls, passed = [first], [call], []
        while self.waiting and room > 0:
            task = self.waiting.popleft()
            other = task.waiting_call
            if other.rows <= room and other.key == call.key:
                tasks.append(task)
                calls.append(other)
                room -= other.rows
            else:
                passed.append(task)
        self.waiting.extendleft(reversed(passed))
        return tasks, calls

    def _take_first(self) -> Task[Any]:
        """The oldest urgent call, else the oldest. No task makes only urgent ones, so all get their turn."""
        first = next((task for task in self.waiting if task.waiting_call.urgent), self.waiting[0])
        self.waiting.remove(first)
        return first

    def _row_limit(self, call: Call) -> int:
        limit = self._learned_limits.get(call.key, call.gather.row_limit)
        room = call.room() if call.room else None
        return limit if room is None else min(limit, room)

    def _run(self, calls: list[Call]) -> list[tuple[Any, BaseException | None]]:
        """One outcome for each call; a joined run that fails is run again in smaller parts."""
        short_of_memory = False
        try:
            return _outcomes(calls, calls[0].gather(calls))
        except DeviceLostError as exc:
            self._lose(exc)
            return [(None, exc)] * len(calls)
        except BaseException as exc:  # noqa: BLE001 -- it belongs to the task whose call it was
            short_of_memory = isinstance(exc, MemoryError)
            if len(calls) == 1:
                return [(None, exc.with_traceback(None) if short_of_memory else exc)]
        # Outside of `except`: a traceback would hold what the failed run had allocated.
        size = (len(calls) + 1) // 2 if short_of_memory else 1
        if short_of_memory:
            self._learned_limits[calls[0].key] = sum(call.rows for call in calls[:size])
        parts = [calls[start : start + size] for start in range(0, len(calls), size)]
        return [outcome for part in parts for outcome in self._run(part)]

    # The end.

    def _fail(self, exc: Exception) -> None:
        """End every task, so that none waits for ever; the next ones are served."""
        error = GenerateError(f"The lane of device {self.name!r} failed with {type(exc).__name__}.")
        error.__cause__ = exc
        self.waiting.clear()
        for task in tuple(self._started):
            self._resume(task, task.running.throw, task.stop_error or error)

    def _lose(self, error: DeviceLostError) -> None:
        """The device is gone: whoever waits hears it, and so does whoever comes."""
        self.lost = self.lost or str(error)
        for task in self.waiting:
            task.stop_error = error

    def _end_all(self, error: BaseException) -> None:
        """Throw until every task has ended, even one that catches its error and calls again."""
        while self.waiting:
            task = self.waiting.popleft()
            self._resume(task, task.running.throw, task.stop_error or error)
        for task in self._arrived:
            self._post(task.deliver, None, error)
        for spare in self._spare:
            spare.throw()


def _outcomes(calls: list[Call], results: Sequence[Any]) -> list[tuple[Any, BaseException | None]]:
    if len(results) != len(calls):
        raise RuntimeError(f"a Gather returned {len(results)} results for {len(calls)} calls")
    return [(result, None) for result in results]
