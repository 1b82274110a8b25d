"""Task: blocking code on its way through a lane, and the promise of what it returns."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Hashable
from contextvars import copy_context
from typing import Generic, TypeVar, cast

from greenlet import greenlet

from router.call import Call

T = TypeVar("T")


class Task(Generic[T]):
    """Made on the loop, run on the lane's thread, ended on the loop."""

    __slots__ = (
        "alone",
        "answer",
        "call",
        "done",
        "ended",
        "function",
        "greenlet",
        "loop",
        "number",
        "rows",
        "setting",
        "stop_error",
        "ticks",
    )

    def __init__(self, function: Callable[[], T], alone: Hashable | None) -> None:
        self.function = function
        self.alone = alone
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[T] = self.loop.create_future()
        self.ended: asyncio.Future[None] | None = None
        self.done = False
        self.setting = copy_context()
        self.greenlet: greenlet | None = None
        self.stop_error: BaseException | None = None
        self.call: Call | None = None
        self.number = 0
        """Of the trace, once it has a tick there."""
        self.ticks = 0
        self.rows = 0

    @property
    def running(self) -> greenlet:
        """The greenlet of a task that has been started and has not ended."""
        assert self.greenlet is not None
        return self.greenlet

    @property
    def waiting_call(self) -> Call:
        """The call of a task that waits for a tick."""
        assert self.call is not None
        return self.call

    def deliver(self, value: T | None, error: BaseException | None) -> None:
        """On the loop: the task has ended, hand over its outcome."""
        self.done = True
        if self.ended is not None:
            self.ended.set_result(None)
        if self.answer.done():
            return
        if isinstance(error, StopIteration):  # a future refuses it, and its caller would wait for ever
            error = RuntimeError("a task of the lane raised StopIteration")
        if error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(cast(T, value))

    async def wait_ended(self) -> None:
        """Wait until no line of the task runs any more, however often the waiting is cancelled."""
        while not self.done:
            self.ended = self.ended or self.loop.create_future()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(self.ended)
