"""StoreThread: the one thread on which the store lives, asked from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from router.server.jobs.store import JobStore

P = ParamSpec("P")
T = TypeVar("T")


class StoreThread:
    """Questions are answered one after the other, in the order in which they were asked."""

    def __init__(self, open_store: Callable[[], JobStore]) -> None:
        self._open_store = open_store
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._store: JobStore | None = None

    async def open(self) -> None:
        """Raises `ConfigError` where the file is not one to use."""
        self._store = await asyncio.get_running_loop().run_in_executor(self._executor, self._open_store)

    async def ask(
        self, question: Callable[Concatenate[JobStore, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`await ask(JobStore.find, owner, id)`. Once asked it is done, whoever stops waiting for it."""
        assert self._store is not None
        asked = partial(question, self._store, *args, **kwargs)
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, asked))

    async def close(self) -> None:
        if self._store is not None:
            await self.ask(JobStore.close)
        await asyncio.to_thread(self._executor.shutdown)
