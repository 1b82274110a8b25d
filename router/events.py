"""follow: a running request as an async iterator of its events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

from router.errors import RequestCancelledError
from router.types import Completed, Event, GenerateResult, OnEvent

Begin: TypeAlias = Callable[[OnEvent], asyncio.Future[GenerateResult]]


async def follow(begin: Begin) -> AsyncIterator[Event]:
    """The events of what `begin` starts, then `Completed`; its error is raised here.

    Left early, it cancels the request and waits until the work has ended.
    """
    events: asyncio.Queue[Event | None] = asyncio.Queue()
    running = begin(events.put_nowait)
    running.add_done_callback(lambda _: events.put_nowait(None))
    try:
        while (event := await events.get()) is not None:
            yield event
        if running.cancelled():
            raise RequestCancelledError("The request was cancelled from elsewhere.")
        yield Completed(running.result())
    finally:
        running.cancel()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # whoever left early does not want it
