"""FakeBackend: pictures, delays, capabilities and faults on demand, with nothing installed.

For tests, and for trying the service without a model. It runs on a real lane like the real ones:

    [[models.demo.instances]]
    backend = "fake"
    options = { step_s = 0.05, profiles = ["64x64"], faults = [{ at = "load", error = "load_failed" }] }

A picture is one colour, a hash of everything that a model would look at: equal requests give equal
pictures on every fake instance, and any changed parameter another one.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from backends._fake_faults import Fault
from backends._fake_latents import with_latents
from backends._lane import LaneBackend, Report, WithLatents
from backends._options import read_options
from router.backend import Lanes
from router.call import Call
from router.capabilities import Capabilities, Defaults
from router.config import InstanceConfig
from router.footprint import Footprint, Peak, Workspace
from router.lora import LoraAbility, LoraFacts
from router.lora_request import lora_set
from router.request import GenerateRequest
from router.types import TASKS, RawImage, ShapeProfile, Task

_PREVIEW_SIDE = 8


class FakeOptions(BaseModel):
    """Every setting of the fake; the defaults make pictures at once and never fail."""

    model_config = ConfigDict(extra="forbid")

    step_s: float = Field(default=0.0, ge=0)
    """Seconds of one tick, however many rows it has."""
    load_s: float = Field(default=0.0, ge=0)
    gathered: bool = True
    """Whether each step is a call that others can share; else a picture is one piece of work."""
    row_limit: int = Field(default=16, ge=1)
    size: int = Field(default=64, ge=8)
    steps: int = Field(default=4, ge=1)
    tasks: tuple[Task, ...] = TASKS
    scales: tuple[int, ...] = ()
    """How many times larger it makes a picture, with the task `upscale`."""
    schedulers: tuple[str, ...] = ("DDIM", "EulerDiscrete")
    profiles: tuple[Annotated[str, Field(pattern=r"^[1-9]\d*x[1-9]\d*$")], ...] = ()
    """Fixed sizes, `HEIGHTxWIDTH`; empty takes any."""
    negative_prompt: bool = True
    loras: tuple[str, ...] = ()
    weights_bytes: int = Field(default=1_000_000, ge=0)
    row_bytes_per_pixel: int = Field(default=100, ge=0)
    """What the formula says."""
    measured_bytes_per_pixel: int | None = Field(default=None, ge=0)
    """What its runs are found to take for each row and pixel; `None` measures nothing."""
    conditions: dict[str, str] = Field(default_factory=dict)
    """Under which that holds; empty keeps nothing."""
    device_memory_bytes: int | None = Field(default=None, ge=1)
    faults: list[Fault] = Field(default_factory=list)


class FakeBackend(LaneBackend):
    """The shipped double. `calls` counts what was asked of it, for tests."""

    def __init__(self, instance: InstanceConfig, lanes: Lanes) -> None:
        self.name = instance.name
        self.options = read_options(FakeOptions, instance)
        self.device = "cpu" if instance.device == "auto" else instance.device
        self.lane = lanes(self.device)
        self.row_limit = instance.row_limit or self.options.row_limit
        self.capabilities = _capabilities(self.options, self.device)
        self._workspace: Workspace | None = None
        self.calls: dict[str, int] = {"probe": 0, "load": 0, "generate": 0, "unload": 0, "step": 0}

    async def probe(self) -> Capabilities:
        self._reach("probe")
        return self.capabilities

    async def load(self) -> None:
        await asyncio.sleep(self.options.load_s)
        self._reach("load")

    def workspace(self) -> Workspace | None:
        return self._workspace

    async def unload(self) -> None:
        self.calls["unload"] += 1

    def __call__(self, calls: Sequence[Call]) -> Sequence[None]:
        """The model itself: one tick of any number of rows."""
        self._meet("run", rows=sum(call.rows for call in calls))
        if self.options.step_s:
            time.sleep(self.options.step_s)
        if self.options.measured_bytes_per_pixel is not None:
            self._measure(self.options.measured_bytes_per_pixel, calls)
        return [None] * len(calls)

    def _measure(self, bytes_per_pixel: int, calls: Sequence[Call]) -> None:
        rows, pixels = sum(call.rows for call in calls), calls[0].arguments
        peak = Peak(rows, pixels, rows * pixels * bytes_per_pixel)
        self._workspace = (self._workspace or Workspace()).joined(Workspace(denoise=peak))

    def picture(self, request: GenerateRequest, seed: int, report: Report) -> RawImage | WithLatents:
        self._reach("generate", request.prompt)
        assert request.height is not None
        assert request.width is not None
        total = request.num_inference_steps or self.options.steps
        pixel = _colour(request, seed)
        if self.options.gathered:
            key = (id(self), request.height, request.width, lora_set(request))
            call = Call(key, self.capabilities.rows_of(request), self, request.height * request.width)
            for index in range(1, total + 1):
                self._reach("step", request.prompt)
                self.lane.call(call)
                report(index, total, _preview(pixel, index / total) if request.previews else None)
        image = RawImage(request.height, request.width, pixel * (request.height * request.width))
        return with_latents(image, pixel) if request.latents else image

    def _reach(self, place: str, prompt: str = "") -> None:
        """Count, and raise the fault that is planted here."""
        self.calls[place] += 1
        self._meet(place, prompt)

    def _meet(self, place: str, prompt: str = "", rows: int = 0) -> None:
        for fault in self.options.faults:
            if fault.strikes(place, prompt, rows):
                if fault.times == 1:
                    self.options.faults.remove(fault)
                fault.times = max(fault.times - 1, 0)
                raise fault.exception(self.name, prompt)


def _capabilities(options: FakeOptions, device: str) -> Capabilities:
    return Capabilities(
        family="fake",
        pipeline="FakePipeline",
        tasks=frozenset(options.tasks),
        defaults=Defaults(options.size, options.size, options.steps, guidance_scale=5.0),
        footprint=Footprint(options.weights_bytes, options.row_bytes_per_pixel, 0),
        conditions=tuple(options.conditions.items()),
        device=device,
        dtype="float32",
        profiles=tuple(_profile(size) for size in options.profiles),
        schedulers=options.schedulers,
        negative_prompt=options.negative_prompt,
        loras=LoraAbility(tuple(LoraFacts(name, family="fake") for name in options.loras)),
        latents=True,
        scales=options.scales,
        device_memory_bytes=options.device_memory_bytes,
    )


def _profile(size: str) -> ShapeProfile:
    height, _, width = size.partition("x")
    return ShapeProfile(size, int(height), int(width), "float32", row_buckets=(1, 2, 4, 8, 16))


def _preview(pixel: bytes, done: float) -> RawImage:
    """A small picture that goes from gray to the colour."""
    mixed = bytes(round(128 + (value - 128) * done) for value in pixel)
    return RawImage(_PREVIEW_SIDE, _PREVIEW_SIDE, mixed * _PREVIEW_SIDE**2)


def _colour(request: GenerateRequest, seed: int) -> bytes:
    """Three bytes that depend on all that a model would look at."""
    seen: list[Any] = [request.prompt, request.negative_prompt, request.num_inference_steps, seed]
    seen += [request.guidance_scale, request.strength, request.scheduler, request.loras]
    digest = hashlib.blake2b(repr(seen).encode(), digest_size=3)
    for image in (request.image, request.mask_image):
        digest.update(image.pixels if image else b"")
    return digest.digest()
