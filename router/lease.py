"""Lease: a loaded instance with room for one request, held until the work on it has really ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from router.deadline import Deadline
from router.errors import BackendError, DeadlineExceededError, RouterError
from router.footprint import Demand
from router.request import GenerateRequest
from router.slot import Slot, State, steps_of
from router.types import Generated, Loading, OnEvent, Queued, Timings, ignore_event

if TYPE_CHECKING:
    from router.pool import Pool

_STAGES = ("queued", "load", "generate")
_LOADING_EVERY_S = 1.0


class Lease:
    """Entered with `async with`: waits for a place, for bytes and for the load. Left, it gives them back."""

    __slots__ = (
        "_on_event",
        "_pool",
        "_turn",
        "admitted",
        "admitted_at",
        "arrival",
        "bytes",
        "created_at",
        "demand",
        "device",
        "ended_at",
        "loaded_at",
        "overtaken",
        "request",
        "slot",
        "work",
    )

    def __init__(
        self,
        pool: Pool,
        slot: Slot,
        request: GenerateRequest,
        on_event: OnEvent,
        *,
        demand: Demand,
        bytes: int,
    ) -> None:
        self._pool = pool
        self._on_event = on_event
        self._turn: asyncio.Future[None] | None = None
        self.slot = slot
        self.request = request
        self.demand = demand
        self.work = demand.rows * steps_of(request)
        """Rows times steps, the unit of `Pace.work_s`."""
        self.bytes = bytes
        """Workspace that it needs where it runs alone."""
        self.device = ""
        """Where it runs."""
        self.arrival = 0
        self.overtaken = 0
        """How many younger requests were admitted while this one waited for bytes."""
        self.admitted = False
        self.created_at = pool.clock()
        self.admitted_at: float | None = None
        self.loaded_at: float | None = None
        self.ended_at: float | None = None

    @property
    def stage(self) -> str:
        """Where the request is, or was when it ended."""
        if self.admitted_at is None:
            return "queued"
        return "loading" if self.loaded_at is None else "generating"

    @property
    def is_loaded(self) -> bool:
        """Whether the instance was ready for it, so that what failed then was the work."""
        return self.loaded_at is not None

    @property
    def seconds(self) -> float:
        """From the first wish to the end, or until now."""
        return (self._pool.clock() if self.ended_at is None else self.ended_at) - self.created_at

    def timings(self, route_s: float = 0.0) -> Timings:
        """Of its stages, as far as it came; `route_s` was spent before it was made."""
        ended = self._pool.clock() if self.ended_at is None else self.ended_at
        admitted = ended if self.admitted_at is None else self.admitted_at
        loaded = ended if self.loaded_at is None else self.loaded_at
        return Timings(
            route_s=route_s,
            queued_s=admitted - self.created_at,
            load_s=loaded - admitted,
            generate_s=ended - loaded,
        )

    def stages(self) -> Iterator[tuple[str, float, float]]:
        """`queued`, `load`, `generate`, as far as it came, each with its beginning and end, or now."""
        times = (self.created_at, self.admitted_at, self.loaded_at, self.ended_at)
        for stage, began, ended in zip(_STAGES, times, times[1:], strict=False):
            if began is not None:
                yield stage, began, self._pool.clock() if ended is None else ended

    async def generate(self, deadline: Deadline) -> Generated:
        """Enter, make the pictures, leave; it ends, also by cancel or deadline, when the work has ended."""
        instance = self.slot.instance
        try:
            with deadline:
                async with self:
                    return await instance.generate(self.request, self._on_event, deadline.left_s())
        except TimeoutError as exc:
            raise DeadlineExceededError(
                f"The deadline passed while the request was {self.stage} ({instance.name});"
                " give it a longer `deadline_s`, or come again later."
            ) from exc

    async def load(self) -> None:
        """Have the instance loaded as for this request, which is not run and counts as none."""
        await self.__aenter__()
        self._pool.leave(self)

    async def __aenter__(self) -> Lease:
        try:
            self._pool.enter(self)
            if not self.admitted:
                await self._wait_for_turn()
            if self.slot.state is not State.READY:
                await self._wait_for_load()
        except BaseException:
            self._pool.leave(self)
            raise
        self.loaded_at = self._pool.clock()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended_at = self._pool.clock()
        if exc is None and self.loaded_at is not None:
            self.slot.served += 1
            self.slot.pace.served(self.ended_at - self.loaded_at, self.slot.running_work)
        elif isinstance(exc, BackendError):
            self.slot.failed += 1
        self._pool.leave(self)

    # Called by the pool, in the middle of its decision: nothing here may call back or raise.

    def admit(self, device: str) -> None:
        self.admitted, self.device = True, device
        self.admitted_at = self._pool.clock()
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def refuse(self, error: RouterError) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_exception(error)

    def moved_to(self, position: int) -> None:
        if self._turn is not None and self._on_event is not ignore_event:
            self._turn.get_loop().call_soon(self._on_event, Queued(self.slot.name, position))

    async def _wait_for_turn(self) -> None:
        self._turn = asyncio.get_running_loop().create_future()
        self.moved_to(len(self.slot.waiting))
        await self._turn

    async def _wait_for_load(self) -> None:
        """Whoever gives up waiting does not stop the load that others wait for."""
        loading = self.slot.loading
        assert loading is not None
        while not loading.done():
            self._on_event(self._loading())
            await asyncio.wait([loading], timeout=_LOADING_EVERY_S)
        if (error := loading.result()) is not None:
            raise error

    def _loading(self) -> Loading:
        elapsed_s = round(self._pool.clock() - self.slot.load_began, 1)
        return Loading(self.slot.name, elapsed_s, self.slot.instance.measurements.load_s)
