"""Quotas: how much one key may have in progress, and how many pictures it may ask for in a minute."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from router.breaker import Clock
from router.server.errors import RateLimitError

MINUTE_S = 60.0
_TOGETHER_S = 1.0


@dataclass(slots=True)
class _Use:
    running: int = 0
    asked: deque[tuple[float, int]] = field(default_factory=deque)
    """When, and how many pictures since then; of the last minute, one entry a second at most."""
    pictures: int = 0
    """Sum of what stands in `asked`."""

    def add(self, now: float, pictures: int) -> None:
        """Those of one second count together, so that a busy key has 60 entries and not thousands."""
        since, before = self.asked[-1] if self.asked else (-math.inf, 0)
        if now - since < _TOGETHER_S:
            self.asked[-1] = (since, before + pictures)
        else:
            self.asked.append((now, pictures))
        self.pictures += pictures


class Quotas:
    """Both limits of every key; `None` is no limit. A refused request counts for nothing."""

    def __init__(
        self, requests: int | None, pictures_per_minute: int | None, clock: Clock = time.monotonic
    ) -> None:
        self._requests = requests
        self._pictures = pictures_per_minute
        self._clock = clock
        self._uses: dict[str, _Use] = {}

    @contextmanager
    def held(self, key: str, pictures: int) -> Iterator[None]:
        """Around a request for so many pictures. Raises `RateLimitError`."""
        use = self._uses.setdefault(key, _Use())
        if self._requests is not None and use.running >= self._requests:
            raise RateLimitError(
                f"{use.running} requests of this API key are in progress, which is as many as may be;"
                " wait for one of them."
            )
        self.charge(key, pictures)
        use.running += 1
        try:
            yield
        finally:
            use.running -= 1

    def charge(self, key: str, pictures: int) -> None:
        """Count pictures that a key asks for. Raises `RateLimitError` beyond its share of the minute."""
        if self._pictures is None:
            return
        use, now = self._uses.setdefault(key, _Use()), self._clock()
        while use.asked and use.asked[0][0] <= now - MINUTE_S:
            use.pictures -= use.asked.popleft()[1]
        if use.pictures + pictures > self._pictures:
            raise RateLimitError(
                f"This API key may ask for {self._pictures} pictures a minute, and {use.pictures} were;"
                f" {pictures} more are too many now.",
                retry_after_s=self._free_in_s(use, pictures, now),
            )
        use.add(now, pictures)

    def _free_in_s(self, use: _Use, pictures: int, now: float) -> float:
        """Seconds until enough of what was asked is a minute old; a whole minute for what never fits."""
        assert self._pictures is not None
        excess = use.pictures + pictures - self._pictures
        for at, count in use.asked:
            excess -= count
            if excess <= 0:
                return at + MINUTE_S - now
        return MINUTE_S
