"""From a request to its result: quota, router, metrics, and a client that leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import cast

from fastapi import Request

from router.errors import RequestCancelledError
from router.request import GenerateRequest
from router.server.errors import ClosingError
from router.server.exchange import exchange_of
from router.server.front import Front, front_of
from router.types import Completed, Event, GenerateResult

_WATCH_AFTER_S = 0.02
_STOPPED = "The service shut down before the picture was ready; send the request again in a moment."


async def generate(request: Request, wanted: GenerateRequest) -> GenerateResult:
    """The result of a request whose body was read. A client that leaves stops the work within a step.

    Raises what `BackendRouter.generate` raises, `RateLimitError` and `ClosingError`.
    """
    front, exchange = front_of(request), exchange_of(request)
    held = front.quotas.held(exchange.key, wanted.num_images_per_prompt)
    with front.at_work(), held, _Presence(request):
        result = await front.router.generate(wanted)
    front.metrics.served(result)
    return result


@asynccontextmanager
async def streaming(request: Request, wanted: GenerateRequest) -> AsyncIterator[AsyncIterator[Event]]:
    """The events of a request, for a streamed reply. Left early, the work is stopped.

    The quota is held until the block is left.
    """
    front, exchange = front_of(request), exchange_of(request)
    with front.at_work(), front.quotas.held(exchange.key, wanted.num_images_per_prompt):
        async with aclosing(_counted(front, wanted)) as events:
            yield events


async def _counted(front: Front, wanted: GenerateRequest) -> AsyncGenerator[Event]:
    events = cast("AsyncGenerator[Event]", front.router.stream(wanted))
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Completed):
                front.metrics.served(event.result)
            yield event


class _Presence:
    """Around work for one client: cancels it when the client has left, and says so by its error.

    Work of a few milliseconds ends before anybody looks: to look takes a task.
    """

    __slots__ = ("_left", "_request", "_task", "_timer", "_watching")

    def __init__(self, request: Request) -> None:
        self._request = request
        self._left = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._watching: asyncio.Task[None] | None = None
        self._timer = task.get_loop().call_later(_WATCH_AFTER_S, self._begin)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
        if front_of(self._request).stopped and isinstance(exc, asyncio.CancelledError):
            self._task.uncancel()
            raise ClosingError(_STOPPED) from None
        if self._left and self._task.uncancel() == 0 and isinstance(exc, asyncio.CancelledError):
            raise RequestCancelledError("The client went away; the work for it was stopped.") from None

    def _begin(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """The body was read, so that the next message is that the client has left."""
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self._left = True
        self._task.cancel()
