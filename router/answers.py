"""Answers: a bounded cache of awaited texts. Who asks for one that is being made waits for the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AnswersStatistics:
    """Counts since it was made."""

    made: int
    hits: int
    """Known before."""
    joined: int
    """Waited for an answer that another had asked for."""
    failed: int
    kept: int


class _Flight:
    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[str]) -> None:
        self.task = task
        self.waiting = 0


class Answers:
    """Keeps the `most` answers that were used last. Lives on one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[Hashable, str] = {}
        """Least recently used first."""
        self._flights: dict[Hashable, _Flight] = {}
        self._made = self._hits = self._joined = self._failed = 0

    async def get(self, key: Hashable, make: Callable[[], Awaitable[str]]) -> tuple[str, bool]:
        """The answer, and whether it was known or already on its way. Raises what `make` raises.

        `make` is cancelled when nobody waits for it any more; who left last leaves after it has ended.
        """
        if (known := self._kept.pop(key, None)) is not None:
            self._kept[key] = known
            self._hits += 1
            return known, True
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(self._make(key, make)))
        self._joined += joined
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task), joined
        except asyncio.CancelledError:
            await self._leave(key, flight)
            raise

    def statistics(self) -> AnswersStatistics:
        return AnswersStatistics(self._made, self._hits, self._joined, self._failed, len(self._kept))

    async def _make(self, key: Hashable, make: Callable[[], Awaitable[str]]) -> str:
        try:
            answer = await make()
        except Exception:
            self._failed += 1
            raise
        finally:
            flight = self._flights.get(key)
            if flight is not None and flight.task is asyncio.current_task():
                del self._flights[key]
        self._made += 1
        self._kept[key] = answer
        while len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
        return answer

    async def _leave(self, key: Hashable, flight: _Flight) -> None:
        flight.waiting -= 1
        if flight.waiting or flight.task.done():
            return
        if self._flights.get(key) is flight:  # nobody joins what is being stopped
            del self._flights[key]
        flight.task.cancel()
        while not flight.task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([flight.task])
        if not flight.task.cancelled():
            flight.task.exception()  # nobody is left to hear of it
