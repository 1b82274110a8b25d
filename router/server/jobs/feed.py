"""Feed: where one unfinished job stands, told to any number of readers. None of them can hold it up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from router.server.jobs.job import Job
from router.types import Event, Loading, Queued, Step

MAX_UNREAD = 32
"""News kept for a reader who is slow; beyond, it misses the oldest, never the last."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an unfinished job is."""

    state: Literal["queued", "loading", "running"]
    position: int | None = None
    """While it is queued: 1 is next."""
    instance: str = ""
    """The one that is being loaded for it."""
    elapsed_s: float = 0.0
    """Since that load began."""
    expected_s: float | None = None
    """What loading it took before, where that is known."""
    step: Step | None = None
    """The last one, of any of its pictures."""


News: TypeAlias = Progress | Job
"""A job as news is one that has ended: the last that there is."""


def _loading(event: Loading) -> Progress:
    return Progress(
        "loading", instance=event.instance, elapsed_s=event.elapsed_s, expected_s=event.expected_s
    )


class Feed:
    """Readers come and go at any time; each is told the present first."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._unread: set[_Unread] = set()
        self._is_over = False

    def tell(self, progress: Progress) -> None:
        if progress != self.progress:
            self.progress = progress
            for unread in self._unread:
                unread.add(progress)

    def hear(self, event: Event) -> None:
        """The `OnEvent` of the job's request."""
        match event:
            case Queued():
                self.tell(Progress("queued", event.position))
            case Loading():
                self.tell(_loading(event))
            case Step():
                self.tell(Progress("running", step=event))

    def end(self, job: Job | None = None) -> None:
        """The job has ended; or, without it, nothing more is known here, as the service ends."""
        self._is_over = True
        for unread in self._unread:
            if job is not None:
                unread.add(job)
            unread.add(None)

    async def follow(self) -> AsyncIterator[News]:
        """The present, then everything as it comes. Ends with the job."""
        unread = _Unread(self.progress)
        if self._is_over:
            unread.add(None)
        self._unread.add(unread)
        try:
            while (news := await unread.next()) is not None:
                yield news
        finally:
            self._unread.discard(unread)


class _Unread:
    """What one reader has not taken yet; `None` is the end."""

    def __init__(self, first: News) -> None:
        self._news: deque[News | None] = deque([first], MAX_UNREAD)
        self._arrived = asyncio.Event()

    def add(self, news: News | None) -> None:
        self._news.append(news)
        self._arrived.set()

    async def next(self) -> News | None:
        while not self._news:
            self._arrived.clear()
            await self._arrived.wait()
        return self._news.popleft()
