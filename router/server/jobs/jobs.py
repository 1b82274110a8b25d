"""Jobs: what the routes ask. It opens the store, resumes what waits there, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType

from router.request import GenerateRequest
from router.router import BackendRouter
from router.server.jobs.errors import JobStoreError
from router.server.jobs.feed import News, Progress
from router.server.jobs.job import Draft, Job, latents_place
from router.server.jobs.limits import JobLimits
from router.server.jobs.runner import OnResult, Runner
from router.server.jobs.store import JobStore
from router.server.jobs.store_thread import StoreThread

_TRIM_S = 600.0


class Jobs:
    """`async with` it, inside of its router's. An owner is the name of a key."""

    def __init__(self, path: Path, limits: JobLimits, router: BackendRouter, on_result: OnResult) -> None:
        """`path` is the SQLite file. `on_result` is told of each result that was kept."""
        self._router = router
        self._store = StoreThread(lambda: JobStore(path, limits))
        self._runner = Runner(self._store, router, limits, on_result)
        self._trimming: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Jobs:
        """Raises `ConfigError` for a file that cannot be used."""
        await self._store.open()
        for job in await self._store.ask(JobStore.waiting):
            self._runner.add(job)
        self._trimming = asyncio.create_task(self._trim(), name="trim jobs")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What still runs is stopped and waits in the store for the next start."""
        if self._trimming is not None:
            self._trimming.cancel()
        await self._runner.close()
        await self._store.close()

    @property
    def waiting(self) -> int:
        """Jobs accepted and not begun."""
        return self._runner.waiting

    @property
    def running(self) -> int:
        """Jobs in the hands of the router, where they may wait too."""
        return self._runner.running

    async def drain(self) -> None:
        """Begin no more; wait until what runs has ended. What waits stays in the store."""
        await self._runner.drain()

    async def earlier(self, draft: Draft) -> Job | None:
        """The job that came before with the same Idempotency-Key; a repetition costs nothing."""
        return await self._store.ask(JobStore.earlier, draft) if draft.idempotency_key else None

    async def submit(self, draft: Draft, request: GenerateRequest) -> tuple[Job, bool]:
        """The accepted job, and whether it is new. Raises at once what nobody will ever serve."""
        route = await self._router.explain(request)
        if not route.candidates and not route.temporary:
            raise route.refusal()
        return await asyncio.shield(asyncio.create_task(self._accept(draft)))

    async def find(self, owner: str | None, id: str) -> Job:
        return await self._store.ask(JobStore.find, owner, id)

    async def page(self, owner: str, limit: int, after: str | None) -> tuple[Sequence[Job], bool]:
        return await self._store.ask(JobStore.page, owner, limit, after)

    async def picture(self, owner: str | None, id: str, place: int) -> bytes:
        return await self._store.ask(JobStore.result, owner, id, place)

    async def latents(self, owner: str | None, id: str, place: int) -> bytes:
        return await self._store.ask(JobStore.result, owner, id, latents_place(place))

    async def remove(self, owner: str, id: str) -> Job:
        """Cancel a job, which stays as cancelled, or forget one that has ended. It is as it was then."""
        job, cancelled = await self._store.ask(JobStore.cancel, owner, id)
        if cancelled:
            self._runner.stop(job)
        else:
            await self._store.ask(JobStore.remove, owner, id)
        return job

    def progress(self, job: Job) -> Progress | None:
        """How far it is; `None` when it has ended."""
        feed = self._runner.feed(job.id) if job.is_unfinished else None
        return feed.progress if feed else None

    async def follow(self, owner: str | None, id: str) -> AsyncIterator[News]:
        """Where the job stands, then everything as it comes; the ended job is the last."""
        await self.find(owner, id)
        feed = self._runner.feed(id)
        if feed is not None:
            async for news in feed.follow():
                yield news
        elif not (job := await self.find(owner, id)).is_unfinished:
            yield job

    async def _accept(self, draft: Draft) -> tuple[Job, bool]:
        """Shielded: once in the store it must be known here, whoever stops waiting for the answer."""
        job, is_new = await self._store.ask(JobStore.accept, draft)
        if is_new:
            self._runner.add(job)
        return job, is_new

    async def _trim(self) -> None:
        while True:
            await asyncio.sleep(_TRIM_S)
            with contextlib.suppress(JobStoreError):  # the store has logged it
                await self._store.ask(JobStore.trim)
