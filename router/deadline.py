"""Deadline: the time by which a request must be done, and what becomes of it when it is stopped."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from router.alarm import Alarm, Alarms


class Deadline:
    """Entered with `with`, it cancels its task when the time has come and raises `TimeoutError`.

    Like `asyncio.timeout_at` at a fraction of its cost. And it is strict: where the task was cancelled, the
    block ends as cancelled or timed out, whatever came out of it.
    """

    __slots__ = ("_alarm", "_alarms", "_cancelled_before", "_expired", "_loop", "_task", "at")

    def __init__(self, task: asyncio.Task[Any], seconds: float | None) -> None:
        self._task = task
        self._loop = task.get_loop()
        self._cancelled_before = task.cancelling()
        self._expired = False
        self._alarms = Alarms.of(self._loop)
        self._alarm: Alarm | None = None
        self.at = None if seconds is None else self._loop.time() + seconds
        """On the loop's clock; `None` never comes."""

    def left_s(self) -> float | None:
        return None if self.at is None else max(0.0, self.at - self._loop.time())

    def __enter__(self) -> None:
        if self.at is not None:
            self._alarm = self._alarms.set(self.at, self._expire)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._alarm is not None:
            self._alarms.turn_off(self._alarm)
        if self._task.cancelling() <= self._cancelled_before:
            return
        if self._expired and self._task.uncancel() <= self._cancelled_before:
            raise TimeoutError from exc
        if not isinstance(exc, asyncio.CancelledError):  # a stopped library may say anything
            raise asyncio.CancelledError from exc

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
