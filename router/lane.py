"""Lane: one thread that owns one device; here is the side that the event loop sees.

Every blocking model call of the house happens on a lane; the event loop only awaits. What the
thread does, and how the calls of many tasks become common ticks, is in `hub.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from router.call import Call
from router.errors import BackendUnavailableError, DeviceLostError, RequestCancelledError
from router.hub import Hub, Shared
from router.task import Task
from router.trace import Trace

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """What a lane has done and holds. `occupancy` is the mean number of rows in a tick."""

    name: str
    ticks: int
    rows: int
    busy_s: float
    running: int
    waiting: int
    lost: str

    @property
    def occupancy(self) -> float:
        return self.rows / self.ticks if self.ticks else 0.0


class Lane:
    """One thread that owns one device. Submit with `run`, hand over model calls with `call`.

    Made on the event loop that it will serve; `close` it, or its thread stays.
    """

    def __init__(self, name: str, *, threads: int | None = None, trace: Trace | None = None) -> None:
        self.name = name
        self.threads = threads
        """CPU threads that the models of this lane may use; `None` leaves it to the library."""
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[Task[Any] | None] = queue.SimpleQueue()
        self._outbox: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._submitting = threading.Lock()
        self._closed = False
        self._hub = Hub(name, self._inbox, self.post, trace)
        self._thread = threading.Thread(target=self._hub.live, name=f"lane {name}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        hub = self._hub
        state = (hub.lost and "lost") or (self._closed and "closed") or "open"
        return (
            f"<Lane {self.name!r} {state}, {hub.running} running, {len(hub.waiting)} waiting,"
            f" {hub.ticks} ticks, {hub.rows} rows>"
        )

    async def run(self, function: Callable[[], T], *, alone: Hashable | None = None) -> T:
        """Run blocking code as a task of this lane and return what it returns.

        Tasks with the same `alone` run one after the other, never side by side. When cancelled,
        the task is stopped at its next call, and the cancellation goes on only after it has ended.
        Raises `DeviceLostError` for a device that is gone, `BackendUnavailableError` once closed.
        """
        task = Task(function, alone)
        self._submit(task)
        try:
            return await task.answer
        except asyncio.CancelledError:
            task.stop_error = RequestCancelledError("The caller cancelled the request.")
            await task.wait_ended()
            raise

    def call(self, call: Call) -> Any:
        """Inside a task: hand a model call over and wait for its part of a tick. Elsewhere: run it."""
        return self._hub.call(call)

    def shared(self) -> Shared:
        """Inside a task: the ticks and rows it has shared so far. Elsewhere: zeros."""
        return self._hub.shared()

    def check_stop(self) -> None:
        """Inside a task: raise the error that it would get at its next call, if it is to stop."""
        self._hub.check_stop()

    def post(self, callback: Callable[..., object], *arguments: Any) -> None:
        """From the lane's thread: call back on the event loop, in order; many posts, one wake-up."""
        self._outbox.append((callback, arguments))
        if len(self._outbox) == 1:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._drain)

    def check(self) -> None:
        """Raise `DeviceLostError` if the device is gone; callable from any thread."""
        if self._hub.lost:
            raise DeviceLostError(self._hub.lost)

    def statistics(self) -> LaneStatistics:
        """A frozen copy of the counters; cheap, callable from any thread."""
        hub = self._hub
        return LaneStatistics(
            name=self.name,
            ticks=hub.ticks,
            rows=hub.rows,
            busy_s=hub.busy_s,
            running=hub.running,
            waiting=len(hub.waiting),
            lost=hub.lost,
        )

    def close(self) -> None:
        """Stop every task at its next call and end the thread. Blocks until it has ended."""
        with self._submitting:
            if not self._closed:
                self._closed = True
                self._inbox.put(None)
        self._thread.join()

    def _submit(self, task: Task[Any]) -> None:
        if task.loop is not self._loop:
            raise RuntimeError(f"lane {self.name!r} belongs to another event loop")
        with self._submitting:  # nothing may come behind the None that ends the thread
            self.check()
            if self._closed:
                raise BackendUnavailableError(f"The lane of device {self.name!r} is closed.")
            self._inbox.put(task)

    def _drain(self) -> None:
        try:
            while self._outbox:
                callback, arguments = self._outbox.popleft()
                callback(*arguments)
        finally:
            if self._outbox:  # a callback raised; the others still get theirs
                self._loop.call_soon(self._drain)
