"""Runner: takes waiting jobs to the router, oldest first, and what becomes of them to the store."""

from __future__ import annotations

import asyncio
import logging
from bisect import insort
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from router.errors import BackendUnavailableError, OverloadedError, QueueFullError, RouterError
from router.request_id import REQUEST_ID
from router.router import BackendRouter
from router.server import facts, latents, pictures
from router.server.errors import UNKNOWN_RETRY_S
from router.server.jobs.feed import Feed, Progress
from router.server.jobs.job import Job, latents_place
from router.server.jobs.limits import JobLimits
from router.server.jobs.store import JobStore
from router.server.jobs.store_thread import StoreThread
from router.server.jobs.submission import restore
from router.server.stopwatch import Stopwatch
from router.types import GenerateResult

log = logging.getLogger("router.server")

OnResult: TypeAlias = Callable[[GenerateResult], None]

_UNEXPECTED = RouterError("Something failed that should not; the log of the server has it.")


class Waiting(NamedTuple):
    """A job that waits; sorted by age."""

    number: int
    id: str
    starts: int
    model: str | None
    refused_at: float | None = None
    """On the loop's clock: when for the first time nobody could serve it."""

    @property
    def is_suspect(self) -> bool:
        """It was under way when the process died, and may have been the reason."""
        return self.starts > 0


class Runner:
    """Lives on the event loop of its router.

    A suspect runs alone. If it kills the process again, it is the only one that was under way, and
    the jobs that ran beside it the first time are not taken for guilty.
    """

    def __init__(
        self, store: StoreThread, router: BackendRouter, limits: JobLimits, on_result: OnResult
    ) -> None:
        self._store = store
        self._router = router
        self._limits = limits
        self._on_result = on_result
        self._feeds: dict[str, Feed] = {}
        self._waiting: list[Waiting] = []
        self._running: dict[str, Waiting] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused: dict[str | None, asyncio.TimerHandle] = {}
        """By model: its instances have no room now, or cannot be used."""
        self._draining = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    def add(self, job: Job) -> None:
        """A job that waits in the store."""
        self._feeds[job.id] = Feed(Progress("queued"))
        insort(self._waiting, Waiting(job.number, job.id, job.starts, job.parameters.get("model")))
        self._begin()

    def feed(self, id: str) -> Feed | None:
        """Of a job that is not finished."""
        return self._feeds.get(id)

    def stop(self, job: Job) -> None:
        """A job that was cancelled in the store: what runs for it ends within a step."""
        self._waiting = [waiting for waiting in self._waiting if waiting.id != job.id]
        for task in self._tasks:
            if task.get_name() == job.id:
                task.cancel()
        self._end(job)
        self._begin()

    async def drain(self) -> None:
        """Begin no more; wait until what runs has ended. What waits stays in the store."""
        self._draining = True
        for waiting in self._waiting:
            self._feeds[waiting.id].end()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Stop what runs; it goes back to the queue of the store."""
        self._draining = True
        for timer in self._paused.values():
            timer.cancel()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    # The queue.

    def _begin(self) -> None:
        """Begin as many as may run, and tell the others where they stand."""
        while (waiting := self._next()) is not None:
            self._waiting.remove(waiting)
            self._running[waiting.id] = waiting
            task = asyncio.create_task(self._attend(waiting), name=waiting.id)
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        feeds = [self._feeds[id] for id in self._running if id in self._feeds]
        queued = [feed.progress.state for feed in feeds].count("queued")
        for position, waiting in enumerate(self._waiting, start=queued + 1):
            self._feeds[waiting.id].tell(Progress("queued", position))

    def _next(self) -> Waiting | None:
        """The oldest that may begin now."""
        ready = next((waiting for waiting in self._waiting if waiting.model not in self._paused), None)
        if ready is None or self._draining:
            return None
        if ready.is_suspect:
            return None if self._running else ready
        has_suspect = any(running.is_suspect for running in self._running.values())
        return ready if len(self._running) < self._limits.running and not has_suspect else None

    def _pause(self, model: str | None, seconds: float) -> None:
        """Jobs of other models may overtake."""
        if model not in self._paused:
            self._paused[model] = asyncio.get_running_loop().call_later(seconds, self._resume, model)

    def _resume(self, model: str | None) -> None:
        del self._paused[model]
        self._begin()

    # One job.

    async def _attend(self, waiting: Waiting) -> None:
        """From the start to the end of one job, or back to the queue."""
        try:
            await self._try(waiting)
        except asyncio.CancelledError:
            await self._give_back(waiting)
            raise
        finally:
            del self._running[waiting.id]
            self._begin()

    async def _try(self, waiting: Waiting) -> None:
        try:
            begun = await self._store.ask(JobStore.start, waiting.id)
            if begun is not None:
                await self._work(*begun)
        except asyncio.CancelledError:
            raise
        except (OverloadedError, BackendUnavailableError) as exc:
            await self._refused(waiting, exc)
        except RouterError as exc:
            await self._fail(waiting.id, exc)
        except BaseException:  # a mistake of ours
            await self._fail(waiting.id, _UNEXPECTED)
            raise

    async def _work(self, job: Job, inputs: Mapping[str, bytes]) -> None:
        """Make the pictures and keep them."""
        REQUEST_ID.set(job.id)  # of this task alone
        feed = self._feeds[job.id]
        feed.tell(Progress("running"))
        request, encoding = await asyncio.to_thread(restore, job.parameters, inputs)
        result = await self._router.generate(request, on_event=feed.hear)
        with Stopwatch() as writing:
            files = await pictures.encode(result.images, encoding)
        meta = facts.facts_of(result, writing.seconds)
        places = [picture.index for picture in result.pictures if picture.image is not None]
        kept = dict(zip(places, files, strict=True))
        found = zip(places, latents.files(result), strict=True)
        kept |= {latents_place(index): data for index, data in found if data is not None}
        ended = await self._store.ask(JobStore.finish, job.id, meta, kept)
        if ended is not None:
            self._end(ended)
            self._on_result(result)

    async def _refused(self, waiting: Waiting, error: RouterError) -> None:
        """Nobody can serve it now: it waits for its turn, or for as long as patience lasts."""
        now = asyncio.get_running_loop().time()
        if not isinstance(error, QueueFullError):
            waiting = waiting._replace(refused_at=now if waiting.refused_at is None else waiting.refused_at)
        waited_s = 0.0 if waiting.refused_at is None else now - waiting.refused_at
        feed = self._feeds.get(waiting.id)
        has_begun = feed is not None and feed.progress.step is not None
        if has_begun or waited_s > self._limits.patience_s:
            await self._fail(waiting.id, error)
            return
        self._pause(waiting.model, getattr(error, "retry_after_s", None) or UNKNOWN_RETRY_S)
        await self._give_back(waiting)

    async def _give_back(self, waiting: Waiting) -> None:
        """To its old place, unless it has ended meanwhile."""
        given_back = await self._store.ask(JobStore.give_back, waiting.id)
        feed = self._feeds.get(waiting.id)
        if feed is None:  # it was cancelled
            return
        if given_back and not self._draining:
            insort(self._waiting, waiting)
        else:
            feed.end()
        if not given_back:
            del self._feeds[waiting.id]

    async def _fail(self, id: str, error: RouterError) -> None:
        ended = await self._store.ask(JobStore.fail, id, error)
        if ended is not None:
            self._end(ended)

    def _end(self, job: Job) -> None:
        feed = self._feeds.pop(job.id, None)
        if feed is not None:
            feed.end(job)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Where not even the failure could be kept, the job stands as running until the next start."""
        self._tasks.discard(task)
        if task.cancelled() or (exc := task.exception()) is None:
            return
        log.error("a job ended in an unexpected way", extra={"job": task.get_name()}, exc_info=exc)
        if feed := self._feeds.pop(task.get_name(), None):
            feed.end()
