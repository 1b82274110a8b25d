"""LaneBackend: what backends share whose pictures are made by blocking code on a lane.

A request's pictures are as many tasks of the lane; the event loop only awaits them. Who inherits
writes plain blocking code in `picture`, and cannot block the loop.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from backends._errors import as_router_error
from backends._thread import to_its_end
from router.errors import DeviceLostError, RequestCancelledError
from router.footprint import Workspace
from router.hub import Shared
from router.lane import Lane
from router.request import GenerateRequest
from router.types import Generated, OnEvent, Picture, RawImage, Step, ignore_event

T = TypeVar("T")

Report: TypeAlias = Callable[[int, int, RawImage | None], None]
"""`report(index, total, preview)`: step `index` of `total` is done, counted from 1."""


@dataclass(frozen=True, slots=True)
class WithLatents:
    """A picture, and what it was decoded from: as in `Picture`."""

    image: RawImage
    latents: bytes
    fingerprint: bytes


Fetch: TypeAlias = Callable[[], RawImage | WithLatents]
"""Waits until a picture has come from the device, on whatever thread; it may still report."""


class LaneBackend(ABC):
    """Turns a request into tasks of one lane, and their outcomes into `Generated`."""

    name: str
    lane: Lane

    @abstractmethod
    def picture(self, request: GenerateRequest, seed: int, report: Report) -> RawImage | WithLatents | Fetch:
        """Make one picture, with its latents if the request asks for them.

        Blocking; runs as a task of the lane, where `self.lane.call` waits. What only waits for the device
        may be left to a `Fetch`, so that the lane goes on.
        """

    def alone(self) -> Hashable | None:
        """Not `None`: pictures with the same value are made one after the other."""
        return None

    def peak_bytes(self) -> int | None:
        """Most bytes the device has held so far, where that is known."""
        return None

    def workspace(self) -> Workspace | None:
        """What was measured of the runs so far; `None` where nothing can be."""
        return None

    async def generate(
        self, request: GenerateRequest, on_event: OnEvent, deadline_s: float | None
    ) -> Generated:
        runs = [self._run(request, index, seed, on_event) for index, seed in enumerate(request.seeds)]
        made = [await runs[0]] if len(runs) == 1 else await _all(runs)
        pictures = tuple(picture for picture, _ in made)
        if all([picture.error for picture in pictures]):
            assert pictures[0].error is not None
            raise pictures[0].error
        return Generated(
            pictures=pictures,
            ticks=sum([shared.ticks for _, shared in made]),
            rows=sum([shared.rows for _, shared in made]),
            peak_bytes=self.peak_bytes(),
            workspace=self.workspace(),
        )

    async def _run(
        self, request: GenerateRequest, index: int, seed: int, on_event: OnEvent
    ) -> tuple[Picture, Shared]:
        lane = self.lane
        tell: Callable[..., object] = lane.post

        def report(step: int, total: int, preview: RawImage | None) -> None:
            if on_event is not ignore_event:
                tell(on_event, Step(index, step, total, preview))

        def task() -> tuple[Picture | Fetch, Shared]:
            try:
                made = self.picture(request, seed, report)
                return (made if callable(made) else _made(index, seed, made)), lane.shared()
            except (RequestCancelledError, DeviceLostError):
                raise
            except Exception as exc:  # noqa: BLE001 -- the edge: a library's exception becomes ours
                return Picture(index, seed, error=as_router_error(exc, self.name, request)), lane.shared()

        made, shared = await lane.run(task, alone=self.alone())
        if isinstance(made, Picture):
            return made, shared
        tell = asyncio.get_running_loop().call_soon_threadsafe  # from another thread now than the lane's
        return await self._fetched(made, request, index, seed), shared

    async def _fetched(self, fetch: Fetch, request: GenerateRequest, index: int, seed: int) -> Picture:
        try:
            return _made(index, seed, await to_its_end(fetch, name="fetch"))
        except Exception as exc:  # noqa: BLE001 -- the edge, as in the task
            error = exc.with_traceback(None)  # whose frames are let go, this one's too

        def judge() -> Picture:  # on the lane, which hears so of a device that is lost
            return Picture(index, seed, error=as_router_error(error, self.name, request))

        return await self.lane.run(judge)


def _made(index: int, seed: int, made: RawImage | WithLatents) -> Picture:
    if isinstance(made, RawImage):
        return Picture(index, seed, made)
    return Picture(index, seed, made.image, latents=made.latents, fingerprint=made.fingerprint)


async def _all(runs: Sequence[Awaitable[T]]) -> list[T]:
    """Their values, or the first error, once all have ended; a cancellation is handed on to each."""
    outcomes = await asyncio.gather(*runs, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
