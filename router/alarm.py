"""Alarm: a call at a time to come. All of a thread's event loop share one timer of the loop.

asyncio's own timer for each request costs several times as much, and most are cancelled before they ring.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable

_MOST_SILENT = 64
"""Alarms turned off that may lie among the others before they are looked at."""


class Alarm:
    """Rings once, unless it is turned off before."""

    __slots__ = ("at", "number", "ring")

    def __init__(self, at: float, number: int, ring: Callable[[], object]) -> None:
        self.at = at
        self.number = number
        self.ring: Callable[[], object] | None = ring

    def __lt__(self, other: Alarm) -> bool:
        return (self.at, self.number) < (other.at, other.number)


class Alarms:
    """Those of one event loop, the next first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._set: list[Alarm] = []
        self._silent = 0
        self._numbers = itertools.count()
        self._timer: asyncio.Handle | None = None
        self._wakes_at = 0.0
        """When the timer does; uvloop's own cannot always say so."""

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Alarms:
        """The ones of this loop; call it in the loop's own thread."""
        alarms: Alarms | None = getattr(_here, "alarms", None)
        if alarms is None or alarms.loop is not loop:
            alarms = _here.alarms = cls(loop)
        return alarms

    def set(self, at: float, ring: Callable[[], object]) -> Alarm:
        """Call `ring` on the loop at a time of its clock."""
        alarm = Alarm(at, next(self._numbers), ring)
        heapq.heappush(self._set, alarm)
        if self._set[0] is alarm:
            self._wind()
        return alarm

    def turn_off(self, alarm: Alarm) -> None:
        """It will not ring; one that has rung is left alone."""
        if alarm.ring is None:
            return
        alarm.ring = None
        self._silent += 1
        self._drop_silent()
        if self._silent > _MOST_SILENT and self._silent > len(self._set) / 2:
            self._set = [each for each in self._set if each.ring is not None]
            heapq.heapify(self._set)
            self._silent = 0

    def _drop_silent(self) -> None:
        while self._set and self._set[0].ring is None:
            heapq.heappop(self._set)
            self._silent -= 1

    def _wind(self) -> None:
        """Have the timer wake for the next alarm; one that wakes before that is left as it is."""
        at = self._set[0].at
        if self._timer is not None:
            if self._wakes_at <= at:
                return
            self._timer.cancel()
        self._wakes_at = at
        self._timer = self.loop.call_at(at, self._wake)

    def _wake(self) -> None:
        now = max(self.loop.time(), self._wakes_at)  # the loop's clock is coarse: it may come a little early
        self._timer = None
        try:
            while self._set and self._set[0].at <= now:
                self._ring(heapq.heappop(self._set))
        finally:  # one that raises takes none of the others along
            self._drop_silent()
            if self._set:
                self._wind()

    def _ring(self, alarm: Alarm) -> None:
        ring, alarm.ring = alarm.ring, None
        if ring is None:
            self._silent -= 1
        else:
            ring()


_here = threading.local()
