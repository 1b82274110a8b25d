"""The ways in which bench_gpu makes pictures: plain Diffusers, eager or compiled, and the lane."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from backends import _speed
from backends._compiled import allow_variants, repeated_blocks
from backends._decode_stream import CudaStreams
from backends._gauge import Gauge, gauged
from backends._headroom import Room, cuda_free_bytes, headroom
from backends._pipeline import PipelineBackend
from backends._quicker import Quicker
from backends._speed import SpeedOptions
from router.footprint import Workspace
from router.lane import Lane
from router.request import GenerateRequest
from router.types import ignore_event
from scripts.gpu_models import Asked, denoiser

COLOURS = ("red", "blue", "green", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "star", "heart", "ring")


def requests(
    asked: Asked, count: int, *, mixed: bool = False, steps: int | None = None
) -> list[GenerateRequest]:
    """So many. Mixed ones differ in steps and guidance, and take as many steps together as equal ones.

    All are guided, so that a step of each has as many rows.
    """
    draw = random.Random(0)
    steps = steps or asked.steps
    return [
        GenerateRequest.of(
            prompt=f"a {draw.choice(COLOURS)} {draw.choice(SHAPES)}",
            height=asked.height,
            width=asked.width,
            num_inference_steps=steps + (_offset(index, steps) if mixed else 0),
            guidance_scale=asked.guidance_scale + (index % 4 if mixed else 0),
            seed=index,
        )
        for index in range(count)
    ]


def _offset(index: int, steps: int) -> int:
    """A quarter or half of the steps more or less; of an even number of requests they add up to nothing."""
    return steps // 4 * (index // 2 % 2 + 1) * (1 if index % 2 else -1)


class Plain:
    """Diffusers as its users call it: requests of equal parameters in calls of `batch` prompts."""

    def __init__(self, pipeline: Any, batch: int) -> None:
        self._pipeline = pipeline
        self._batch = batch

    def run(self, wanted: Sequence[GenerateRequest]) -> None:
        for start in range(0, len(wanted), self._batch):
            self.call(wanted[start : start + self._batch])

    def call(self, wanted: Sequence[GenerateRequest]) -> Any:
        first = wanted[0]
        with torch.no_grad():
            return self._pipeline(
                prompt=[each.prompt for each in wanted],
                height=first.height,
                width=first.width,
                num_inference_steps=first.num_inference_steps,
                guidance_scale=first.guidance_scale,
                generator=[torch.Generator().manual_seed(each.seed or 0) for each in wanted],
            )


def compile_blocks(module: torch.nn.Module) -> Callable[[], None]:
    """Regional compilation, as Diffusers' users switch it on; what is returned switches it off."""
    allow_variants()
    blocks = repeated_blocks(module)
    for block in blocks:
        block.compile(dynamic=False)

    def undo() -> None:
        for block in blocks:
            block._compiled_call_impl = None

    return undo


class OnLane:
    """Our lane, on a thread of its own, with an event loop that lives from one run to the next."""

    def __init__(
        self, pipeline: Any, card: str, options: SpeedOptions, asked: Asked, rows: int, gauge: Gauge | None
    ) -> None:
        """`gauge`: what measures the runs, as in an instance on a GPU."""
        self._runner = asyncio.Runner()
        self.backend: Built = self._runner.run(_loaded(pipeline, card, options, asked, rows, gauge))

    def run(self, wanted: Sequence[GenerateRequest]) -> None:
        self._runner.run(self._all(wanted))

    async def _all(self, wanted: Sequence[GenerateRequest]) -> None:
        await asyncio.gather(*(self.backend.generate(each, ignore_event, None) for each in wanted))

    def close(self) -> None:
        self._runner.run(self.backend.unload())
        self._runner.run(asyncio.to_thread(self.backend.lane.close))
        self._runner.close()


class Built(PipelineBackend):
    """An instance whose pipeline is there already."""

    name = "bench"

    def __init__(
        self, pipeline: Any, lane: Lane, options: SpeedOptions, asked: Asked, rows: int, gauge: Gauge | None
    ) -> None:
        super().__init__()
        self.lane = lane
        self.row_limit = rows
        self.row_buckets = options.row_buckets
        self._pipeline = pipeline
        self._options = options
        self._asked = asked
        self._gauge = gauge
        self._quicker = Quicker(options, self.name)

    def read(self) -> Any:
        return self._pipeline

    def place(self, pipeline: Any) -> None:
        if self._gauge:
            pipeline.vae.decode = self._gauge.around(pipeline.vae.decode, "decode")
        _speed.apply(self._options, pipeline, self.name)
        if self._options.decode_stream:
            self.decode_streams = CudaStreams(self.lane.name)

    def compiled(self, name: str, module: Any) -> Any:
        return gauged(self._gauge, module, self._quicker.of(name, module))

    def room(self, name: str) -> Room | None:
        return headroom(self._gauge, partial(cuda_free_bytes, self.lane.name)) if self._gauge else None

    def workspace(self) -> Workspace:
        return self._gauge.workspace if self._gauge else Workspace()

    def _let_go(self) -> None:
        self._pipeline.vae.__dict__.pop("decode", None)
        super()._let_go()

    def warm_up(self) -> None:
        self._quicker.warm_up(self, (self._asked.height, self._asked.width))


async def _loaded(
    pipeline: Any, card: str, options: SpeedOptions, asked: Asked, rows: int, gauge: Gauge | None
) -> Built:
    backend = Built(pipeline, Lane(card), options, asked, rows, gauge)
    await backend.load()
    return backend


class Captured:
    """One call of the denoiser as the pipeline makes it, to be made again and again."""

    def __init__(self, pipeline: Any, wanted: Sequence[GenerateRequest]) -> None:
        self.module = denoiser(pipeline)[1]
        self.args: tuple[Any, ...] = ()
        self.values: dict[str, Any] = {}
        hook = self.module.register_forward_pre_hook(self._keep, with_kwargs=True)
        try:
            short = [each.model_copy(update={"num_inference_steps": 2}) for each in wanted]
            Plain(pipeline, len(short)).call(short)
        finally:
            hook.remove()

    def _keep(self, module: Any, args: tuple[Any, ...], values: dict[str, Any]) -> None:
        self.args, self.values = args, values

    @property
    def rows(self) -> int:
        given = (*self.args, self.values.get("hidden_states"))
        return int(next(each for each in given if isinstance(each, torch.Tensor)).shape[0])

    def __call__(self) -> Any:
        with torch.no_grad():
            return self.module(*self.args, **self.values)
