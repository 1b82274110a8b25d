"""Blocking work on a thread of its own, which ends with the work."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


async def on_a_thread_of_its_own(function: Callable[[], T], name: str = "load") -> T:
    """What `function` returns. The thread ends with the work, and its OpenMP threads with it.

    Those of a pooled thread would stay, and where OpenMP has more threads than the machine has cores,
    idle ones too, it stops spinning at barriers: small models then run at half their speed.
    """
    executor = ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, function)
    finally:
        executor.shutdown(wait=False)


async def to_its_end(function: Callable[[], T], stop: Callable[[], None] | None = None, *, name: str) -> T:
    """The same; cancelled, it calls `stop` and goes on only when the thread's work has ended."""
    running = asyncio.ensure_future(on_a_thread_of_its_own(function, name))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # nobody is left to hear of it
        raise
