"""Capabilities: what an instance can do, and the first reason why it cannot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from router.footprint import Footprint
from router.lora import NO_LORAS, LoraAbility
from router.prompt_ability import AS_THEY_ARE, PromptAbility
from router.request import GenerateRequest
from router.room import memory_reasons
from router.scale import scale_reasons
from router.schedulers import NamedScheduler, find_scheduler
from router.sizes import Size, SizeRange
from router.types import ShapeProfile, Task


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a field means when the request leaves it out."""

    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float | None = None
    """`None`: the model has no guidance to scale."""
    strength: float = 0.8


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one instance can do. Made by `Backend.probe`, without loading weights."""

    family: str
    pipeline: str
    tasks: frozenset[Task]
    defaults: Defaults
    footprint: Footprint
    device: str
    dtype: str
    size_multiple: int = 8
    min_side: int = 16
    max_side: int = 4096
    profiles: tuple[ShapeProfile, ...] = ()
    """Empty: any size within the limits. Else only these sizes."""
    schedulers: tuple[str, ...] = ()
    """Class names without `Scheduler` at their end; the first is the model's own."""
    scheduler_steps: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Class name -> the fewest and the most steps that it can do, where that is known."""
    negative_prompt: bool = True
    true_cfg: bool = False
    loras: LoraAbility = NO_LORAS
    encoding: PromptAbility = AS_THEY_ARE
    """Whether it reads long prompts, and weights in prompts."""
    reproducible: bool = True
    previews: bool = True
    refiner: bool = False
    """Whether a second model can make the last steps of a picture from text."""
    latents: bool = False
    """Whether it hands out the latents of its pictures."""
    scales: tuple[int, ...] = ()
    """How many times larger it makes a picture, for the task `upscale`."""
    prompts: bool = True
    """Whether it looks at prompt and steps; a plain upscaler does not."""
    resamples: bool = False
    """Whether it makes pictures larger without a model, so that it needs leave."""
    device_memory_bytes: int | None = None
    """All of the device's memory, `None` where it is not known."""
    conditions: tuple[tuple[str, str], ...] = ()
    """What a measured workspace holds under: model, device, dtype, settings, versions. Empty keeps none."""
    notes: tuple[str, ...] = ()
    """What an operator should see in `triptych backends`: attention in use, offload, compile."""

    @property
    def fixed_shape(self) -> bool:
        return bool(self.profiles)

    @property
    def sizes(self) -> SizeRange:
        """What presets and aspect ratios stand for here."""
        fixed = tuple([Size(profile.height, profile.width) for profile in self.profiles])
        return SizeRange(Size(self.defaults.height, self.defaults.width), self.size_multiple, fixed)

    def why_not(self, request: GenerateRequest) -> str | None:
        """The first reason why this instance cannot serve exactly this request.

        Takes an effective request. Unsupported parameters are reasons, never ignored.
        """
        return next(self._reasons(request), None)

    def refuses_size(self, request: GenerateRequest) -> bool:
        """Whether the size of an effective request is a reason: it cannot be made, or never fits."""
        return any(True for _ in (*self._size_reasons(request), *memory_reasons(self, request)))

    def rows_of(self, request: GenerateRequest) -> int:
        """Rows that one picture of the request adds to a run: two with guidance, else one.

        A guidance-distilled model (FLUX) takes the scale as an input, and true guidance as a second call.
        """
        scale = None if self.true_cfg else request.guidance_scale
        return 2 if scale is not None and scale > 1 else 1

    def _reasons(self, request: GenerateRequest) -> Iterator[str]:
        if request.task not in self.tasks:
            yield f"it does {_list(sorted(self.tasks))}, not {request.task}."
        if request.task == "upscale":
            yield from scale_reasons(self, request)
        yield from self._size_reasons(request)
        yield from self._parameter_reasons(request)
        yield from self._scheduler_reasons(request)
        yield from self._feature_reasons(request)
        yield from memory_reasons(self, request)

    def _size_reasons(self, request: GenerateRequest) -> Iterator[str]:
        height, width = _size(request)
        if self.profiles:
            if not any(profile.holds(height, width) for profile in self.profiles):
                sizes = _list([f"{profile.height}x{profile.width}" for profile in self.profiles])
                yield f"its graphs are made for {sizes} (height x width), not {height}x{width}."
            return
        for name, side in (("height", height), ("width", width)):
            what, cure = f"`{name}`", "try"
            if request.image is not None:  # the size is the picture's: another `height` alone is no cure
                what, cure = f"the {name} of the picture in `image`", "resize it to"
            if not self.min_side <= side <= self.max_side:
                yield f"{what} must be {self.min_side} to {self.max_side} pixels, not {side}."
            if side % self.size_multiple:
                near = " or ".join(map(str, self._near(side)))
                yield f"{what} must be a multiple of {self.size_multiple}, not {side}; {cure} {near}."

    def _near(self, side: int) -> list[int]:
        """The multiples around `side` that are within the limits."""
        below = side - side % self.size_multiple
        around = (below, below + self.size_multiple)
        return [multiple for multiple in around if self.min_side <= multiple <= self.max_side]

    def _parameter_reasons(self, request: GenerateRequest) -> Iterator[str]:
        if request.guidance_scale is not None and self.defaults.guidance_scale is None:
            yield "`guidance_scale` has no effect on this model; leave it out."
        if request.true_cfg_scale is not None:
            yield from self._true_cfg_reasons(request)
        if request.negative_prompt is not None:
            yield from self._negative_prompt_reasons(request)
        steps, strength = request.num_inference_steps, request.strength
        if steps is not None and strength is not None and int(steps * strength) < 1:
            yield (
                f"`strength` {strength} leaves none of the {steps} `num_inference_steps` to do;"
                f" it must be at least {math.ceil(1000 / steps) / 1000}."
            )

    def scheduler_of(self, request: GenerateRequest) -> NamedScheduler | None:
        """What the request's `scheduler` means here, the model's own where it names none."""
        if request.scheduler is None:
            return NamedScheduler(self.schedulers[0]) if self.schedulers else None
        return find_scheduler(request.scheduler, self.schedulers)

    def _scheduler_reasons(self, request: GenerateRequest) -> Iterator[str]:
        if request.scheduler is None and not self.scheduler_steps:
            return
        named, steps = self.scheduler_of(request), request.num_inference_steps
        if named is None and request.scheduler is not None:
            offered = _list(self.schedulers) if self.schedulers else "none"
            yield f"it has no scheduler {request.scheduler!r}; it has {offered}."
        if named is not None and named.kind in self.scheduler_steps and steps is not None:
            least, most = self.scheduler_steps[named.kind]
            if not least <= steps <= most:
                yield (
                    f"`num_inference_steps` is {steps}, and the scheduler {named.kind} takes {least} to"
                    f" {most}; change it or choose another `scheduler`."
                )

    def _feature_reasons(self, request: GenerateRequest) -> Iterator[str]:
        if request.loras:
            yield from self.loras.reasons([lora.name for lora in request.loras])
        yield from self.encoding.reasons(request)
        if request.reproducible and not self.reproducible:
            yield "it cannot promise `reproducible` pictures."
        yield from self._refiner_reasons(request)
        if request.previews and not self.previews:
            yield "it has no `previews`."
        if request.latents and not self.latents:
            yield "it does not hand out `latents`."

    def _refiner_reasons(self, request: GenerateRequest) -> Iterator[str]:
        if request.refiner_start is None or request.refiner_start == 1:
            return
        if not self.refiner:
            yield "it has no refiner; leave `refiner_start` out."
        if request.task != "text-to-image":
            yield f"its refiner follows text-to-image, not {request.task}; leave `refiner_start` out."

    def _true_cfg_reasons(self, request: GenerateRequest) -> Iterator[str]:
        if not self.true_cfg:
            yield "`true_cfg_scale` is not a parameter of this model; use `guidance_scale`."
        if request.negative_prompt is None:
            yield "`true_cfg_scale` has no effect without a `negative_prompt`; give one or leave it out."

    def _negative_prompt_reasons(self, request: GenerateRequest) -> Iterator[str]:
        if not self.negative_prompt:
            yield "`negative_prompt` is not a parameter of this model."
        scale, field = request.guidance_scale, "guidance_scale"
        if self.true_cfg:
            scale, field = request.true_cfg_scale, "true_cfg_scale"
        if scale is None or scale <= 1:
            yield f"`negative_prompt` has no effect unless `{field}` is above 1."


def _size(request: GenerateRequest) -> tuple[int, int]:
    if request.height is None or request.width is None:
        raise ValueError("the size is not filled in yet; choose_route does it")
    return request.height, request.width


def _list(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names)
