"""choose_route: a request and what the instances can do -> Route. Pure: no clock, no chance, no waiting."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias, cast

from router.capabilities import Capabilities
from router.config import Limits, ModelConfig
from router.errors import BackendUnavailableError, InvalidRequestError, NoRouteError, RouterError
from router.footprint import Estimate
from router.preset import BUILT_IN, RequestPreset
from router.presets import with_preset
from router.reference import settled
from router.request import GenerateRequest
from router.room import estimate, fitted
from router.sizes import Size, SizeName, choose_size, nearest_fixed, nearest_multiple, ratio_of
from router.types import Rejections

Predict: TypeAlias = Callable[[str, GenerateRequest], float]
"""Instance name, request -> seconds until it would be done there."""

NONE_UNAVAILABLE: Rejections = MappingProxyType({})
NO_ESTIMATES: Mapping[str, Estimate] = MappingProxyType({})
NO_FILLS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class InstanceView:
    """What routing sees of an instance; `capabilities` is `None` until a probe went well."""

    name: str
    capabilities: Capabilities | None


@dataclass(frozen=True, slots=True)
class ModelView:
    """What routing sees of a model: its instances in the order they are tried, and what fills a gap."""

    name: str
    instances: tuple[InstanceView, ...]
    fills: Mapping[str, Any]
    """Field -> default. Empty while no instance is known."""
    stands_in: str = ""
    """Why it serves those who name no model, where it is not the default one."""

    @classmethod
    def of(cls, config: ModelConfig, capabilities: Mapping[str, Capabilities]) -> ModelView:
        """Defaults come from the config, then from the first instance known; fixed shapes go first."""
        views = [InstanceView(each.name, capabilities.get(each.name)) for each in config.instances]
        known = [view.capabilities for view in views if view.capabilities is not None]
        view = cls(config.name, tuple(sorted(views, key=_is_dynamic)), NO_FILLS, config.stands_in)
        if not known:
            return view
        fills = _fills(config, known[0], view.size_of(config.defaults.size))
        return dataclasses.replace(view, fills=MappingProxyType(fills))

    def size_of(self, preset: str | None, aspect_ratio: str | None = None) -> Size | None:
        """What a preset, an aspect ratio or both stand for; `None` for neither, or while nothing is known."""
        if preset is None and aspect_ratio is None:
            return None
        ranges = [view.capabilities.sizes for view in self.instances if view.capabilities is not None]
        ratio = None if aspect_ratio is None else ratio_of(aspect_ratio)
        return choose_size(ranges, cast("SizeName", preset or "l"), ratio)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request can go. `request` is effective: every default and the seed are filled in."""

    model: str
    request: GenerateRequest
    candidates: tuple[str, ...]
    """Instance names, the first to be tried first."""
    rejections: Rejections
    """For each instance passed over, one sentence why."""
    adjustments: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What the caller should know and did not ask: that a model stands in for the default one."""
    estimates: Mapping[str, Estimate] = field(default_factory=lambda: NO_ESTIMATES)
    """For each instance that is known, the bytes that it would take; `explain` fills them in."""
    temporary: bool = False
    """Whether the rejections may pass by themselves: an instance that would serve is not available."""

    def with_estimates(self, model: ModelView) -> Route:
        """With the bytes that the request would take on each instance."""
        known = [(view.name, view.capabilities) for view in model.instances if view.capabilities is not None]
        estimates = {name: estimate(capabilities, self.request) for name, capabilities in known}
        return dataclasses.replace(self, estimates=MappingProxyType(estimates))

    def refusal(self) -> RouterError:
        """The error of a request that has no candidate."""
        if not self.temporary:
            return NoRouteError(self.model, self.rejections)
        why = " ".join(f"{instance}: {sentence}" for instance, sentence in self.rejections.items())
        return BackendUnavailableError(f"No instance of model {self.model!r} is available. {why}")


def choose_route(
    request: GenerateRequest,
    model: ModelView,
    limits: Limits,
    *,
    seed: int,
    unavailable: Rejections = NONE_UNAVAILABLE,
    predict: Predict | None = None,
    presets: Mapping[str, RequestPreset] = BUILT_IN,
) -> Route:
    """Fill in the defaults and `seed`, and put the instances that can serve exactly this in order.

    `unavailable` holds a sentence for each instance that cannot be used now; with `predict` the
    candidates stand by predicted completion, else in the model's order. Raises
    `InvalidRequestError` for what passes the configured limits, whoever would serve it.
    """
    asked = request.model
    request = effective(with_preset(request, presets, model.fills), model, seed)
    request, said = _with_own_scheduler(request, model)
    check_limits(request, limits)
    too_large = beyond_size_limits(request, limits)
    may_resize = request.image is None and "size" in request.allow_adjustments  # nobody resizes pictures
    if too_large and not may_resize:
        raise too_large
    route = _judge(request, model, unavailable, predict)
    if may_resize and (too_large or not route.candidates):
        route = _with_nearest_size(route, model, limits, unavailable, predict)
        if too_large and not route.adjustments:
            raise too_large
    notes = (model.stands_in,) if asked is None and model.stands_in else ()
    if not said and not notes:
        return route
    return dataclasses.replace(route, adjustments=(*said, *route.adjustments), notes=notes)


def effective(request: GenerateRequest, model: ModelView, seed: int) -> GenerateRequest:
    """The request with everything filled in that it leaves open; nothing that it says is changed.

    A preset and an aspect ratio become the height and width that they stand for.
    """
    if size := model.size_of(request.size, request.aspect_ratio):
        sides = {"height": size.height, "width": size.width}
        request = request.model_copy(update={"size": None, "aspect_ratio": None, **sides})
    filled = {field: value for field, value in model.fills.items() if getattr(request, field) is None}
    if request.image is None or request.task == "upscale":
        filled.pop("strength", None)
    if request.image is not None:
        filled.pop("refiner_start", None)
        times = request.scale or 1
        filled |= {
            side: getattr(request.image, side) * times for side in ("height", "width") if side in filled
        }
    if "negative_prompt" in filled and not _guided(request, filled):
        del filled["negative_prompt"]
    filled |= settled(request, filled)
    filled["model"] = model.name
    if request.seed is None:
        filled["seed"] = seed
    return request.model_copy(update=filled)


def check_limits(request: GenerateRequest, limits: Limits) -> None:
    """Raise `InvalidRequestError` for more than the configuration allows; sizes apart."""
    if (steps := request.num_inference_steps) is not None and steps > limits.max_steps:
        raise _too_much("num_inference_steps", steps, limits.max_steps)
    if (guidance := request.guidance_scale) is not None and guidance > limits.max_guidance:
        raise _too_much("guidance_scale", guidance, limits.max_guidance)
    if (guidance := request.true_cfg_scale) is not None and guidance > limits.max_guidance:
        raise _too_much("true_cfg_scale", guidance, limits.max_guidance)
    if request.num_images_per_prompt > limits.max_images:
        raise _too_much("num_images_per_prompt", request.num_images_per_prompt, limits.max_images)


def beyond_size_limits(request: GenerateRequest, limits: Limits) -> InvalidRequestError | None:
    if request.task == "upscale":  # which has a limit of its own, and paints nothing
        return None
    height, width = request.height or 0, request.width or 0
    if height > limits.max_height:
        return _too_much("height", height, limits.max_height)
    if width > limits.max_width:
        return _too_much("width", width, limits.max_width)
    return None


def nearest_size(capabilities: Capabilities, limits: Limits, height: int, width: int) -> tuple[int, int]:
    """The size of about this aspect ratio and area that the instance takes."""
    if capabilities.profiles:
        return nearest_fixed(capabilities.sizes.fixed, Size(height, width))
    multiple = capabilities.size_multiple
    most_height = min(limits.max_height, capabilities.max_side)
    most_width = min(limits.max_width, capabilities.max_side)
    scale = max(1.0, capabilities.min_side / min(height, width))
    scale = min(scale, most_height / height, most_width / width)
    return (
        nearest_multiple(height * scale, multiple, capabilities.min_side, most_height),
        nearest_multiple(width * scale, multiple, capabilities.min_side, most_width),
    )


def _judge(
    request: GenerateRequest, model: ModelView, unavailable: Rejections, predict: Predict | None
) -> Route:
    candidates: list[InstanceView] = []
    rejections: dict[str, str] = {}
    refused = would_serve = False
    for view in model.instances:
        reason = view.capabilities.why_not(request) if view.capabilities else None
        away = unavailable.get(view.name) or (None if view.capabilities else "it was not probed yet.")
        if reason is None and away is None:
            candidates.append(view)
            continue
        rejections[view.name] = reason or away or ""
        refused = refused or reason is not None
        would_serve = would_serve or (reason is None and view.capabilities is not None)
    if predict is not None and len(candidates) > 1:
        candidates.sort(key=lambda view: (_is_dynamic(view), predict(view.name, request)))
    return Route(
        model=model.name,
        request=request,
        candidates=tuple([view.name for view in candidates]),
        rejections=rejections,
        estimates=NO_ESTIMATES,
        temporary=would_serve or not refused,
    )


def _with_own_scheduler(
    request: GenerateRequest, model: ModelView
) -> tuple[GenerateRequest, tuple[str, ...]]:
    """With leave, the model's own scheduler where no instance has the one that is asked for."""
    if "scheduler" not in request.allow_adjustments:
        return request, ()
    known = [view.capabilities for view in model.instances if view.capabilities is not None]
    if any(each.scheduler_of(request) for each in known):
        return request, ()
    own = model.fills.get("scheduler") or next(
        (each.schedulers[0] for each in known if each.schedulers), None
    )
    if request.scheduler is None or own is None:
        return request, ()
    sentence = f"The scheduler was changed from {request.scheduler!r}, which this model has not, to {own}."
    return request.model_copy(update={"scheduler": own}), (sentence,)


def _with_nearest_size(
    route: Route, model: ModelView, limits: Limits, unavailable: Rejections, predict: Predict | None
) -> Route:
    """The same route at the first size that an available instance takes, or the route as it is."""
    height, width = route.request.height, route.request.width
    for view in model.instances:
        if view.capabilities is None or view.name in unavailable or height is None or width is None:
            continue
        nearest = nearest_size(view.capabilities, limits, height, width)
        changed = route.request.model_copy(update={"height": nearest[0], "width": nearest[1]})
        changed = fitted(view.capabilities, changed)
        if view.capabilities.why_not(changed) is None and not beyond_size_limits(changed, limits):
            found = _judge(changed, model, unavailable, predict)
            sentence = (
                f"The size was changed from {height}x{width} to {changed.height}x{changed.width}"
                " (height x width), the nearest that can be served."
            )
            return Route(model.name, changed, found.candidates, found.rejections, (sentence,))
    return route


def _fills(config: ModelConfig, capabilities: Capabilities, size: Size | None) -> dict[str, Any]:
    """`size` is that of the preset which the configuration has as its default, if any."""
    own, defaults = config.defaults, capabilities.defaults
    fills = {
        "height": size.height if size else own.height or defaults.height,
        "width": size.width if size else own.width or defaults.width,
        "num_inference_steps": own.num_inference_steps or defaults.num_inference_steps,
        "guidance_scale": defaults.guidance_scale if own.guidance_scale is None else own.guidance_scale,
        "strength": defaults.strength if own.strength is None else own.strength,
        "scheduler": own.scheduler,
        "refiner_start": own.refiner_start,
        "negative_prompt": own.negative_prompt,
    }
    return {field: value for field, value in fills.items() if value is not None}


def _guided(request: GenerateRequest, filled: Mapping[str, Any]) -> bool:
    """Whether a negative prompt has any effect: a default for it is filled in only where it has."""
    guidance = filled.get("guidance_scale", request.guidance_scale)
    return any(scale is not None and scale > 1 for scale in (guidance, request.true_cfg_scale))


def _is_dynamic(view: InstanceView) -> bool:
    return view.capabilities is None or not view.capabilities.fixed_shape


def _too_much(field: str, value: float, most: float) -> InvalidRequestError:
    return InvalidRequestError(f"`{field}` may be at most {most}, not {value}.", param=field)
