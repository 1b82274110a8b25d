"""Warming up: at load one picture of each size, its denoiser calls run in every row bucket.

What a library does only once for each shape (compile, capture, choose an algorithm) is so done before
the first request, on the lane's thread, and with the very arguments that ticks will have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from backends._gather import Digests, Gathering
from router.call import Call
from router.lane import Lane
from router.request import GenerateRequest
from router.types import RawImage, Task

if TYPE_CHECKING:
    from backends._pipeline import PipelineBackend

STEPS = 2
"""Some schedulers cannot do a single one."""


class Warmed(Protocol):
    """What stands for a denoiser, and learns something from calls while it is being warmed up."""

    warming: bool


class Widening:
    """Stands for a `Gathering` during the warm-up: the first call of each shape goes through every bucket."""

    def __init__(self, gathering: Gathering, lane: Lane, buckets: Sequence[int]) -> None:
        self._gathering = gathering
        self._lane = lane
        self._buckets = buckets
        self.row_limit = gathering.row_limit
        self.stage = gathering.stage
        self._seen: set[object] = set()

    def call(
        self, args: Sequence[object], kwargs: Mapping[str, object], digests: Digests, *, share: bool
    ) -> Call:
        call = self._gathering.call(args, kwargs, digests, share=True)
        if call.key not in self._seen:
            self._seen.add(call.key)
            for rows in self._buckets:
                self._lane.call(self._gathering.widened(call, rows))
        return call

    def __call__(self, calls: Sequence[Call]) -> Sequence[Any]:
        return self._gathering(calls)


def warm_up(
    backend: PipelineBackend,
    denoisers: Mapping[str, Warmed],
    sizes: Iterable[tuple[int, int]],
    buckets: Sequence[int],
) -> None:
    """Paint a picture of each height and width. Inside the task that loads the backend."""
    gatherings = backend._gatherings
    wide = {name: Widening(gatherings[name], backend.lane, buckets) for name in denoisers}
    task = next(iter(backend._pipelines))
    backend._gatherings = cast("Any", gatherings | wide)
    try:
        for each in denoisers.values():
            each.warming = True
        for height, width in sizes:
            backend.picture(request_for(task, height, width), 0, lambda *told: None)
    finally:
        backend._gatherings = gatherings
        for each in denoisers.values():
            each.warming = False


def request_for(task: Task, height: int, width: int) -> GenerateRequest:
    """Something to paint of this size, in two steps, and what the task wants beside a prompt."""
    grey = RawImage(height, width, bytes([128]) * (height * width * 3))
    return GenerateRequest.of(
        prompt="warming up",
        height=height,
        width=width,
        num_inference_steps=STEPS,
        seed=0,
        image=None if task == "text-to-image" else grey,
        mask_image=grey if task == "inpainting" else None,
        strength=None if task == "text-to-image" else 1.0,
    )
