"""Watch: looks whether a request's client still wants it, at each step and in between."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Any, Final

from backends._stub_responses import Responses
from router.types import Event, Step

_LOG = logging.getLogger("router.triton")

POLL_S: Final = 0.1
"""Seconds between two looks while no step tells: the request waits, or decodes."""


class Watch:
    """Entered with `with`, it cancels its task once the client has cancelled, or is gone."""

    def __init__(self, responses: Responses, *, progress: bool) -> None:
        self._responses = responses
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self._steps = self._late = 0

    def on_event(self, event: Event) -> None:
        if not isinstance(event, Step):
            return
        self._steps += 1
        self._late += self._task is None
        if not self._stop_if_unwanted() and self._progress:
            self._report(event)

    def __enter__(self) -> None:
        self._timer = self._loop.call_later(POLL_S, self._poll)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task = None
        if self._timer is not None:
            self._timer.cancel()
        if exc is not None:
            counts = self._steps, self._late
            _LOG.info("Stopped after %d steps, %d since it was unwanted: %s", *counts, type(exc).__name__)

    def _report(self, step: Step) -> None:
        """One request whose responses cannot be sent must not stop the events of the others."""
        try:
            self._responses.step(step)
        except Exception as exc:  # noqa: BLE001 -- the edge: Triton's own errors
            _LOG.warning("A step could not be told", exc_info=exc)
            self._stop()

    def _poll(self) -> None:
        if not self._stop_if_unwanted():
            self._timer = self._loop.call_later(POLL_S, self._poll)

    def _stop_if_unwanted(self) -> bool:
        """Whether nobody waits for an answer any more."""
        if self._task is None:
            return True
        if self._responses.unwanted:
            self._stop()
        return self._task is None

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
