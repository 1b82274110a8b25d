"""Breaker: leaves an instance alone after failures of distinct requests in a row."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

from router.config import BreakerConfig
from router.request import GenerateRequest

Clock: TypeAlias = Callable[[], float]
"""Seconds that only grow, like `time.monotonic`."""

REMEMBERED_REQUESTS = 32


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Closed: requests pass. Open: none passes. Half-open: a cheap probe went well since.

    The first success closes it; until then one more failure opens it again. A request is known
    by its fingerprint and counts once in a row of failures, however often it is repeated.
    """

    __slots__ = ("_clock", "_config", "_failures", "_half_open", "_opened_at", "_reason", "_seen")

    def __init__(self, config: BreakerConfig, clock: Clock = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._failures = 0
        self._half_open = False
        self._opened_at: float | None = None
        self._reason = ""
        self._seen: deque[int] = deque(maxlen=REMEMBERED_REQUESTS)

    @property
    def state(self) -> BreakerState:
        if self._opened_at is not None:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN if self._half_open else BreakerState.CLOSED

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    @property
    def probe_due(self) -> bool:
        """Whether it has been open for long enough to try one probe."""
        return self._opened_at is not None and self._clock() - self._opened_at >= self._config.reset_s

    def succeeded(self) -> None:
        """A request was served. One that began before the breaker opened does not close it."""
        if self._failures:
            self._failures = 0
            self._half_open = False
            self._seen.clear()

    def failed(self, reason: str, request_fingerprint: int | None = None) -> None:
        """Count a failure; without a fingerprint it is one that no request can be blamed for."""
        if request_fingerprint is not None:
            if request_fingerprint in self._seen:
                return
            self._seen.append(request_fingerprint)
        self._failures += 1
        self._reason = reason
        if self._failures >= self._config.failures and not self.is_open:
            self.trip(reason)

    def trip(self, reason: str) -> None:
        """Open at once: the instance itself says that it cannot be used."""
        self._reason = reason
        self._half_open = False
        self._opened_at = self._clock()

    def probe_succeeded(self) -> None:
        """Let requests pass again, on trial if it was open."""
        if self.is_open:
            self._opened_at = None
            self._half_open = True
            self._failures = max(self._config.failures - 1, 1)

    def why_not(self) -> str | None:
        """Why no request passes, as a sentence; `None` if requests pass."""
        if self._opened_at is None:
            return None
        left = max(0.0, self._opened_at + self._config.reset_s - self._clock())
        return f"{self._reason.rstrip('.')}; it is tried again in {left:.0f} s."

    def __repr__(self) -> str:
        return f"<Breaker {self.state.value}, {self._failures} failures in a row>"


def fingerprint(request: GenerateRequest) -> int:
    """The same for requests that ask for the same work, whatever their seeds and deadlines."""
    return hash(request.model_copy(update={"seed": None, "deadline_s": None, "previews": False}))
