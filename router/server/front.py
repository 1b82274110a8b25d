"""Front: what the routes share. It is made once, before the app; the gate puts it into every request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from fastapi import Request

from router.router import BackendRouter
from router.server.access import Access
from router.server.errors import ClosingError
from router.server.jobs.jobs import Jobs
from router.server.links import Links
from router.server.metrics import Metrics
from router.server.outputs import Outputs
from router.server.picture_urls import Fetch
from router.server.quotas import Quotas
from router.server.settings import ServerSettings

Closer: TypeAlias = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Front:
    """One service: its router, and everything else that outlives a request."""

    router: BackendRouter
    settings: ServerSettings
    access: Access
    quotas: Quotas
    links: Links
    outputs: Outputs
    metrics: Metrics
    jobs: Jobs
    fetch: Fetch
    ready: bool = False
    """Whether the start is over: probes made, models preloaded."""
    closing: bool = False
    """Whether the end has begun: no new work is taken, what runs is finished."""
    stopped: bool = False
    """Whether the grace time is over: what still ran was cancelled."""
    closers: list[Closer] = field(default_factory=list)
    """Awaited when the end begins, while the listener still lives; the jobs go to their store here."""
    started_at: float = field(default_factory=time.time)
    """Seconds since the epoch."""
    running: int = 0
    """Requests for pictures that are not answered yet."""
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Around a request for pictures. Raises `ClosingError` where the end has begun."""
        if self.closing:
            raise ClosingError("The service is shutting down; send the request again in a moment.")
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            if not self.running:
                self._idle.set()

    async def begin_to_close(self) -> None:
        """Take no new work; call the closers."""
        if not self.closing:
            self.closing = True
            for close in self.closers:
                await close()

    async def stop(self) -> None:
        """Cancel what still runs, and wait until the work on it has ended."""
        self.stopped = True
        await self.router.cancel_requests()

    async def idle(self) -> None:
        """Wait until no request for pictures is under way."""
        while self.running:
            self._idle.clear()
            await self._idle.wait()


def front_of(request: Request) -> Front:
    front: Front = request.scope["front"]
    return front
