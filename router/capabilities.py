"""Capabilities: what an instance can do, and the first reason why it cannot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from router.footprint import Footprint
from router.lora import NO_LORAS, LoraAbility
from router.prompt_ability import AS_THEY_ARE, PromptAbility
from router.request import GenerateRequest
from router.room import memory_reason, size_of
from router.scale import scale_reason
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
    choices: tuple[tuple[str, str], ...] = ()
    """What was compared at an earlier load under these conditions, and which way was the fastest."""
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
        return (
            self._task_reason(request)
            or self._size_reason(request)
            or self._parameter_reason(request)
            or self._scheduler_reason(request)
            or self._feature_reason(request)
            or memory_reason(self, request)
        )

    def refuses_size(self, request: GenerateRequest) -> bool:
        """Whether the size of an effective request is a reason: it cannot be made, or never fits."""
        return bool(self._size_reason(request) or memory_reason(self, request))

    def rows_of(self, request: GenerateRequest) -> int:
        """Rows that one picture of the request adds to a run: two with guidance, else one.

        A guidance-distilled model (FLUX) takes the scale as an input, and true guidance as a second call.
        """
        scale = None if self.true_cfg else request.guidance_scale
        return 2 if scale is not None and scale > 1 else 1

    def _task_reason(self, request: GenerateRequest) -> str | None:
        task = request.task
        if task not in self.tasks:
            return f"it does {_list(sorted(self.tasks))}, not {task}."
        return scale_reason(self, request) if task == "upscale" else None

    def _size_reason(self, request: GenerateRequest) -> str | None:
        height, width = size_of(request)
        if not self.profiles:
            return self._side_reason(request, "height", height) or self._side_reason(request, "width", width)
        if any(profile.holds(height, width) for profile in self.profiles):
            return None
        sizes = _list([f"{profile.height}x{profile.width}" for profile in self.profiles])
        return f"its graphs are made for {sizes} (height x width), not {height}x{width}."

    def _side_reason(self, request: GenerateRequest, name: str, side: int) -> str | None:
        within = self.min_side <= side <= self.max_side
        if within and not side % self.size_multiple:
            return None
        what, cure = f"`{name}`", "try"
        if request.image is not None:  # the size is the picture's: another `height` alone is no cure
            what, cure = f"the {name} of the picture in `image`", "resize it to"
        if not within:
            return f"{what} must be {self.min_side} to {self.max_side} pixels, not {side}."
        near = " or ".join(map(str, self._near(side)))
        return f"{what} must be a multiple of {self.size_multiple}, not {side}; {cure} {near}."

    def _near(self, side: int) -> list[int]:
        """The multiples around `side` that are within the limits."""
        below = side - side % self.size_multiple
        around = (below, below + self.size_multiple)
        return [multiple for multiple in around if self.min_side <= multiple <= self.max_side]

    def _parameter_reason(self, request: GenerateRequest) -> str | None:
        if request.guidance_scale is not None and self.defaults.guidance_scale is None:
            return "`guidance_scale` has no effect on this model; leave it out."
        if request.true_cfg_scale is not None and (reason := self._true_cfg_reason(request)):
            return reason
        if request.negative_prompt is not None and (reason := self._negative_prompt_reason(request)):
            return reason
        steps, strength = request.num_inference_steps, request.strength
        if steps is None or strength is None or int(steps * strength) >= 1:
            return None
        return (
            f"`strength` {strength} leaves none of the {steps} `num_inference_steps` to do;"
            f" it must be at least {math.ceil(1000 / steps) / 1000}."
        )

    def scheduler_of(self, request: GenerateRequest) -> NamedScheduler | None:
        """What the request's `scheduler` means here, the model's own where it names none."""
        if request.scheduler is None:
            return NamedScheduler(self.schedulers[0]) if self.schedulers else None
        return find_scheduler(request.scheduler, self.schedulers)

    def _scheduler_reason(self, request: GenerateRequest) -> str | None:
        if request.scheduler is None and not self.scheduler_steps:
            return None
        named, steps = self.scheduler_of(request), request.num_inference_steps
        if named is None and request.scheduler is not None:
            offered = _list(self.schedulers) if self.schedulers else "none"
            return f"it has no scheduler {request.scheduler!r}; it has {offered}."
        if named is None or named.kind not in self.scheduler_steps or steps is None:
            return None
        least, most = self.scheduler_steps[named.kind]
        if least <= steps <= most:
            return None
        return (
            f"`num_inference_steps` is {steps}, and the scheduler {named.kind} takes {least} to"
            f" {most}; change it or choose another `scheduler`."
        )

    def _feature_reason(self, request: GenerateRequest) -> str | None:
        if request.loras and (reason := self.loras.why_not([lora.name for lora in request.loras])):
            return reason
        if reason := self.encoding.why_not(request):
            return reason
        if request.reproducible and not self.reproducible:
            return "it cannot promise `reproducible` pictures."
        if request.refiner_start not in (None, 1) and (reason := self._refiner_reason(request)):
            return reason
        if request.previews and not self.previews:
            return "it has no `previews`."
        if request.latents and not self.latents:
            return "it does not hand out `latents`."
        return None

    def _refiner_reason(self, request: GenerateRequest) -> str | None:
        if not self.refiner:
            return "it has no refiner; leave `refiner_start` out."
        if request.task != "text-to-image":
            return f"its refiner follows text-to-image, not {request.task}; leave `refiner_start` out."
        return None

    def _true_cfg_reason(self, request: GenerateRequest) -> str | None:
        if not self.true_cfg:
            return "`true_cfg_scale` is not a parameter of this model; use `guidance_scale`."
        if request.negative_prompt is None:
            return "`true_cfg_scale` has no effect without a `negative_prompt`; give one or leave it out."
        return None

    def _negative_prompt_reason(self, request: GenerateRequest) -> str | None:
        if not self.negative_prompt:
            return "`negative_prompt` is not a parameter of this model."
        scale, field = request.guidance_scale, "guidance_scale"
        if self.true_cfg:
            scale, field = request.true_cfg_scale, "true_cfg_scale"
        if scale is None or scale <= 1:
            return f"`negative_prompt` has no effect unless `{field}` is above 1."
        return None


def _list(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names)
