"""The default router: made on first need, on a loop and thread of its own, for every loop and thread."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, TypeVar

from router.errors import RequestCancelledError, RouterError
from router.events import follow
from router.record import Record
from router.request import GenerateRequest
from router.router import BackendRouter
from router.statistics import RouterStatistics
from router.types import Event, GenerateResult, OnEvent, ignore_event

T = TypeVar("T")

_END_LIMIT_S = 10.0
_CLOSED = "The default router was closed before the picture was ready."


class DefaultRouter:
    """One `BackendRouter` on a daemon thread's event loop. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._entering = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._router: BackendRouter | None = None

    def begin(
        self, request: GenerateRequest | None, fields: Mapping[str, Any], on_event: OnEvent = ignore_event
    ) -> concurrent.futures.Future[GenerateResult]:
        """Start a request; `on_event` is called on the default router's own loop."""
        return asyncio.run_coroutine_threadsafe(self._generate(request, fields, on_event), self._started())

    def statistics(self) -> RouterStatistics | None:
        return self._router.statistics() if self._router else None

    def records(self) -> tuple[Record, ...]:
        return self._router.records() if self._router else ()

    def close(self) -> None:
        """Stop what runs, unload everything and end the thread. The next request starts anew."""
        self._end(self._leave())

    def close_at_exit(self) -> None:
        """Stop what runs. Nothing is unloaded: the process ends, and no thread can be had for it."""
        self._end(self._stop_for_good())

    async def _generate(
        self, request: GenerateRequest | None, fields: Mapping[str, Any], on_event: OnEvent
    ) -> GenerateResult:
        router = self._router or await self._entered()
        return await router.generate(request, on_event=on_event, **fields)

    async def _entered(self) -> BackendRouter:
        async with self._entering:
            if self._router is None:
                router = await asyncio.to_thread(BackendRouter)  # which reads the configuration
                self._router = await router.__aenter__()
            return self._router

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop, self._entering = asyncio.new_event_loop(), asyncio.Lock()
                self._thread = threading.Thread(target=self._loop.run_forever, name="router", daemon=True)
                self._thread.start()
            return self._loop

    async def _stop(self) -> None:
        if self._router is not None:
            await self._router.cancel_requests()

    async def _stop_for_good(self) -> None:
        await self._stop()
        if self._router is not None and self._router.trace is not None:
            self._router.trace.write()

    async def _leave(self) -> None:
        await self._stop()
        if self._router is not None:
            await self._router.__aexit__(None, None, None)
            self._router = None

    def _end(self, last: Coroutine[Any, Any, None]) -> None:
        """Run `last` on the loop, then end loop and thread."""
        with self._starting:
            if self._loop is None or self._thread is None:
                last.close()
                return
            with contextlib.suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(_last_of_all(last), self._loop).result(_END_LIMIT_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None


async def _last_of_all(last: Coroutine[Any, Any, None]) -> None:
    await last
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


_DEFAULT = DefaultRouter()
atexit.register(_DEFAULT.close_at_exit)


async def generate(request: GenerateRequest | None = None, /, **fields: Any) -> GenerateResult:
    """`BackendRouter.generate` on the default router, which is made of `load_config()` on first need.

    Works from any event loop, and from one after the other: the model stays loaded. Cancelling it
    stops the work, which ends shortly after.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelled_before = task.cancelling()
    try:
        return await asyncio.wrap_future(_DEFAULT.begin(request, fields))
    except asyncio.CancelledError:
        if task.cancelling() == cancelled_before:
            raise RequestCancelledError(_CLOSED) from None
        raise


async def upscale(image: object, scale: int = 4, **fields: Any) -> GenerateResult:
    """`BackendRouter.upscale` on the default router."""
    return await generate(image=image, scale=scale, **fields)


def stream(request: GenerateRequest | None = None, /, **fields: Any) -> AsyncIterator[Event]:
    """`BackendRouter.stream` on the default router."""

    def begin(on_event: OnEvent) -> asyncio.Future[GenerateResult]:
        loop = asyncio.get_running_loop()

        def on_event_there(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # that loop is closed: nobody listens any more
                loop.call_soon_threadsafe(on_event, event)

        return asyncio.wrap_future(_DEFAULT.begin(request, fields, on_event_there))

    return follow(begin)


def generate_sync(request: GenerateRequest | None = None, /, **fields: Any) -> GenerateResult:
    """The same for scripts without an event loop: blocks until the pictures are made.

    Raises `RouterError` where a loop runs in this thread, which it would block.
    """
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise RouterError("`generate_sync` would block the event loop; use `await router.generate(...)`.")
    future = _DEFAULT.begin(request, fields)
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        raise RequestCancelledError(_CLOSED) from None
    except BaseException:  # Ctrl-C: nobody waits for the picture any more
        future.cancel()
        raise


def statistics() -> RouterStatistics | None:
    """Those of the default router; `None` while there is none."""
    return _DEFAULT.statistics()


def records() -> tuple[Record, ...]:
    """How the newest requests to the default router went, the newest first; see `BackendRouter.records`."""
    return _DEFAULT.records()


def close() -> None:
    """End the default router; the next request makes another, and reads the configuration again."""
    _DEFAULT.close()
