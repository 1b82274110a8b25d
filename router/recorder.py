"""Recorder: keeps the records of the newest requests, counts, warns, and logs one line each."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeAlias

from router.breaker import Clock
from router.config import WatchConfig
from router.errors import RequestCancelledError
from router.record import Record, line_of
from router.trace import Trace

log = logging.getLogger("router.requests")

Take: TypeAlias = Callable[[Record], bool]
"""Whether the record will be logged by who took it, beside what only he knows of the request."""

TAKE_RECORD: ContextVar[Take | None] = ContextVar("take_record", default=None)
"""Set by who logs a line for each request anyway (the HTTP gate), so that there are not two."""


class Recorder:
    """Lives on the router's event loop."""

    def __init__(self, config: WatchConfig, clock: Clock) -> None:
        self.config = config
        self.clock = clock
        self.trace = Trace(config.trace) if config.trace else None
        self.served = self.failed = self.cancelled = 0
        self.warned: Counter[tuple[str, str, str]] = Counter()
        """Warning, model, instance -> how often."""
        self._records: deque[Record] = deque(maxlen=config.records)

    def records(self) -> tuple[Record, ...]:
        """The newest first."""
        return tuple(reversed(self._records))

    def keep(self, record: Record) -> None:
        """Of a request that has ended."""
        self._count(record.code)
        self._records.append(record)
        for warning in record.warnings:
            self.warned[warning, record.model, record.instance] += 1
        take = TAKE_RECORD.get()
        is_taken = take is not None and take(record)
        if record.warnings:
            log.warning("request ended: %s", " ".join(record.notes), extra=line_of(record))
        elif not is_taken and log.isEnabledFor(logging.INFO):
            log.info("request ended", extra=line_of(record))

    async def close(self) -> None:
        """Write the timeline, if there is one; the lanes have ended."""
        if self.trace is not None:
            await asyncio.to_thread(self.trace.write)
            if self.trace.error:
                log.error(self.trace.error)

    def _count(self, code: str) -> None:
        if not code:
            self.served += 1
        elif code == RequestCancelledError.code:
            self.cancelled += 1
        else:
            self.failed += 1
