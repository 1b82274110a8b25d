"""Stopwatch: how long a block took."""

from __future__ import annotations

import time


class Stopwatch:
    """`with stopwatch:` around what is to be timed."""

    __slots__ = ("_started", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        """Of the last block that was left."""

    def __enter__(self) -> Stopwatch:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
