"""Reload: what is done where the files of a model have changed since they were read, once a failure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from router.errors import GenerateError, LoadError
from router.model_files import ModelFiles

T = TypeVar("T")

Act: TypeAlias = Callable[[], Awaitable[None]]

log = logging.getLogger("router")


class Reload:
    """Around the work of one instance. A reload waits for what runs to end; what comes waits for it."""

    def __init__(self, instance: str, files: ModelFiles, *, probe: Act, load: Act, unload: Act) -> None:
        self._instance = instance
        self._files = files
        self._probe = probe
        self._load = load
        self._unload = unload
        self._running = 0
        self._nobody_runs = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_due = False
        """Whether a reload is wanted, or failed: what is loaded serves nobody."""
        self.count = 0

    async def load(self) -> None:
        """Load the files as they are now; once more where they changed while they were read."""
        if await self._has_changed():
            await self._probe()
        try:
            await self._load()
        except LoadError:
            if not await self._has_changed():
                raise
            await self._probe()
            await self._load()
        self._is_due = False

    async def around(self, work: Callable[[], Awaitable[T]]) -> T:
        """The work; where it fails and the files are not those that were loaded, once more after a reload."""
        await self.settled()
        before = self.count
        try:
            return await self._counted(work)
        except (GenerateError, LoadError):
            if not await self._is_wanted(before):
                raise
        await self.settled()
        return await self._counted(work)

    async def settled(self) -> None:
        """Wait for a reload that is due or under way. Raises what loading raised."""
        if self._is_due and self._task is None:
            self._task = asyncio.create_task(self._reload(), name=f"reload {self._instance}")
            self._task.add_done_callback(self._end)
        if self._task is not None:
            await asyncio.shield(self._task)  # it goes on, whoever gives up

    async def ended(self) -> None:
        """Wait until none is under way, whatever came of it."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _counted(self, work: Callable[[], Awaitable[T]]) -> T:
        self._running += 1
        try:
            return await work()
        finally:
            self._running -= 1
            if not self._running:
                self._nobody_runs.set()

    async def _is_wanted(self, before: int) -> bool:
        """Whether a reload is due, by what this request or another has seen, or was made since."""
        if self.count == before and await self._has_changed():
            self._is_due = True
        return self._is_due or self.count != before

    async def _has_changed(self) -> bool:
        change = await self._files.look()
        if change:
            facts = {"instance": self._instance, "change": change}
            log.warning("the files of a model are not those that were read", extra=facts)
        return bool(change)

    async def _reload(self) -> None:
        while self._running:
            self._nobody_runs.clear()
            await self._nobody_runs.wait()
        await self._unload()
        await self._probe()
        await self._load()
        self._is_due = False
        self.count += 1
        log.warning("a model was loaded anew", extra={"instance": self._instance})

    def _end(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # whoever waited has it
