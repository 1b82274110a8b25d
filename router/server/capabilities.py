"""GET /api/v1/capabilities: one document of what can be asked here, for programs and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from router.capabilities import Capabilities
from router.config import ModelConfig, RouterConfig
from router.images import FORMATS, Format
from router.lora import LoraFacts
from router.preset import RequestPreset
from router.presets import with_preset
from router.request import MAX_PROMPT_CHARACTERS, MAX_SEED, GenerateRequest
from router.routing import ModelView, effective
from router.schedulers import scheduler_names
from router.server.documents import errors
from router.server.front import Front, front_of
from router.server.openai_fields import MAX_PARTIAL_IMAGES
from router.server.sizes import SizeDocument, sizes_of
from router.statistics import InstanceStatus
from router.types import EVERY_TASK, TASKS, RawImage, Task

routes = APIRouter(tags=["operation"])


class Profile(BaseModel):
    name: str
    width: int
    height: int


class MemoryDocument(BaseModel):
    """What it takes on its device: the weights, and the larger of the two others while it works, or both."""

    weights_bytes: int
    row_bytes_per_pixel: int
    """Of the denoiser, for each of the rows in a run: two a picture with guidance, else one."""
    decode_bytes_per_pixel: int
    measured: list[Literal["denoise", "decode"]]
    """Which of the two were measured on this device; the others follow from a formula."""
    overlapped: bool
    """Whether it decodes pictures beside the denoiser's next runs, so that both count."""
    budget_bytes: int | None
    """What may be promised on the device."""


class InstanceDocument(BaseModel):
    name: str
    backend: str
    device: str
    state: str
    breaker: str
    error: str
    """Why it cannot serve now; empty if it can."""
    running: int
    waiting: int
    request_s: float | None
    """Measured seconds of one request."""
    family: str | None = None
    dtype: str | None = None
    tasks: list[Task] = []
    size_multiple: int | None = None
    min_side: int | None = None
    max_side: int | None = None
    profiles: list[Profile] = []
    """If any: only these sizes."""
    schedulers: list[str] = []
    scheduler_names: list[str] = []
    """What other programs call them, and `scheduler` understands too."""
    refiner: bool = False
    loras: list[str] = []
    """Those that a request may name."""
    lora_facts: list[LoraFacts] = []
    """All that are configured, and why some cannot be named."""
    scales: list[int] = []
    """How many times larger it makes a picture, if it does."""
    cannot: dict[str, str] = {}
    """Task or field -> the sentence why this instance does not do it."""
    memory: MemoryDocument | None = None
    notes: list[str] = []


class PresetDocument(BaseModel):
    name: str
    description: str
    fields: dict[str, Any]
    """What the fields are that a request leaves out."""
    why_not: str
    """Why no instance of the model does it; empty if one does."""


class ModelDocument(BaseModel):
    name: str
    description: str
    licence: str
    tasks: list[Task]
    defaults: dict[str, Any]
    """What a field means that is left out."""
    sizes: list[SizeDocument]
    """What each preset stands for at each aspect ratio, where some instance makes it."""
    presets: list[PresetDocument]
    instances: list[InstanceDocument]


class LimitsDocument(BaseModel):
    max_height: int
    max_width: int
    max_steps: int
    max_guidance: float
    max_images: int
    max_prompt_characters: int
    max_seed: int
    max_body_bytes: int
    max_input_pixels: int
    max_partial_images: int
    requests_per_key: int | None
    pictures_per_minute: int | None


class EnhancerDocument(BaseModel):
    by_default: bool
    """Whether prompts are enhanced where a request leaves `enhance` out."""
    on_failure: Literal["error", "original"]


class CapabilitiesDocument(BaseModel):
    default_model: str
    formats: list[Format]
    keys: bool
    """Whether an API key is wanted."""
    image_urls: bool
    """Whether pictures may be given by their http or https address."""
    enhancer: EnhancerDocument | None
    """Of prompts, where one is configured."""
    limits: LimitsDocument
    models: list[ModelDocument]


@routes.get("/api/v1/capabilities", response_model=CapabilitiesDocument, responses=errors(401, 403))
async def capabilities(request: Request) -> CapabilitiesDocument:
    """Models, instances, tasks, sizes, limits, schedulers, and why something cannot be done."""
    front = front_of(request)
    config = front.router.config
    statuses = front.router.instances()
    return CapabilitiesDocument(
        default_model=config.default_model,
        formats=list(FORMATS),
        keys=front.access.has_keys,
        image_urls=front.settings.image_urls,
        enhancer=_enhancer(config),
        limits=_limits(front),
        models=[
            _model(model, [status for status in statuses if status.model == model.name], config)
            for model in config.models
        ],
    )


def _enhancer(config: RouterConfig) -> EnhancerDocument | None:
    enhance = config.enhance
    if enhance is None:
        return None
    return EnhancerDocument(by_default=enhance.by_default, on_failure=enhance.on_failure)


def _limits(front: Front) -> LimitsDocument:
    limits, settings = front.router.config.limits, front.settings
    return LimitsDocument(
        **limits.model_dump(exclude={"concurrency", "queue"}),
        max_prompt_characters=MAX_PROMPT_CHARACTERS,
        max_seed=MAX_SEED,
        max_body_bytes=settings.max_body_bytes,
        max_input_pixels=settings.max_input_pixels,
        max_partial_images=MAX_PARTIAL_IMAGES,
        requests_per_key=settings.requests_per_key,
        pictures_per_minute=settings.pictures_per_minute,
    )


def _model(config: ModelConfig, statuses: Sequence[InstanceStatus], router: RouterConfig) -> ModelDocument:
    known = {status.name: status.capabilities for status in statuses if status.capabilities is not None}
    view = ModelView.of(config, known)
    return ModelDocument(
        name=config.name,
        description=config.description,
        licence=config.licence,
        tasks=[task for task in EVERY_TASK if any(task in each.tasks for each in known.values())],
        defaults=dict(view.fills),
        sizes=list(sizes_of(view, router.limits)),
        presets=[_preset(name, router.presets, view) for name in router.presets],
        instances=[_instance(status, view) for status in statuses],
    )


def _instance(status: InstanceStatus, view: ModelView) -> InstanceDocument:
    facts: dict[str, Any] = {
        name: getattr(status, name)
        for name in (
            "name",
            "backend",
            "device",
            "state",
            "breaker",
            "error",
            "running",
            "waiting",
            "request_s",
        )
    }
    known = status.capabilities
    if known is None:
        return InstanceDocument(**facts)
    for name in ("family", "dtype", "size_multiple", "min_side", "max_side", "schedulers", "notes"):
        facts[name] = getattr(known, name)
    facts |= {"scheduler_names": scheduler_names(known.schedulers), "refiner": known.refiner}
    facts |= {"scales": list(known.scales), "loras": known.loras.names, "lora_facts": known.loras.facts}
    facts["memory"] = _memory(known)
    profiles = [Profile(name=each.name, width=each.width, height=each.height) for each in known.profiles]
    tasks = [task for task in EVERY_TASK if task in known.tasks]
    return InstanceDocument(**facts, tasks=tasks, profiles=profiles, cannot=dict(_cannot(known, view)))


def _memory(known: Capabilities) -> MemoryDocument:
    names = ("weights_bytes", "row_bytes_per_pixel", "decode_bytes_per_pixel", "measured", "overlapped")
    taken = {name: getattr(known.footprint, name) for name in names}
    return MemoryDocument(**taken, budget_bytes=known.device_memory_bytes)


def _preset(name: str, presets: Mapping[str, RequestPreset], view: ModelView) -> PresetDocument:
    reasons = []
    for known in [each.capabilities for each in view.instances if each.capabilities is not None]:
        asked = GenerateRequest.of(prompt="anything", preset=name, **_usual(known))
        reasons.append(known.why_not(effective(with_preset(asked, presets, view.fills), view, seed=0)))
    why = "" if None in reasons or not reasons else reasons[0] or ""
    preset = presets[name]
    return PresetDocument(name=name, description=preset.description, fields=preset.fills, why_not=why)


def _usual(known: Capabilities) -> dict[str, Any]:
    """The fields of the first task that the instance does, at its own size."""
    asked = _tasks_asked(known)
    return next((asked[task] for task in TASKS if task in known.tasks and task in asked), {})


def _tasks_asked(known: Capabilities) -> dict[str, dict[str, Any]]:
    """Task -> fields that ask for it at the instance's own size."""
    height, width = known.defaults.height, known.defaults.width
    if known.profiles:
        height, width = known.profiles[0].height, known.profiles[0].width
    picture = RawImage(height, width, bytes(height * width * 3))
    return {
        "text-to-image": {"height": height, "width": width},
        "image-to-image": {"image": picture},
        "inpainting": {"image": picture, "mask_image": picture},
        "upscale": {"image": picture, "scale": next(iter(known.scales), 2), "prompt": ""},
    }


def _cannot(known: Capabilities, view: ModelView) -> Iterator[tuple[str, str]]:
    """Each task and feature, asked for at the instance's own size, in the router's own words."""
    asked, usual = _tasks_asked(known), _usual(known)
    guided = {"guidance_scale": 5.0, "true_cfg_scale": 5.0 if known.true_cfg else None}
    asked |= {
        "guidance_scale": {**usual, "guidance_scale": 5.0},
        "true_cfg_scale": {**usual, "true_cfg_scale": 5.0, "negative_prompt": "anything"},
        "negative_prompt": {**usual, **guided, "negative_prompt": "anything"},
        "reproducible": {**usual, "reproducible": True},
        "previews": {**usual, "previews": True},
        "latents": {**usual, "latents": True},
        "long_prompt": {**usual, "long_prompt": "chunk"},
        "prompt_weighting": {**usual, "prompt_weighting": True},
    }
    for name, fields in asked.items():
        wanted = effective(GenerateRequest.of(**{"prompt": "anything"} | fields), view, seed=0)
        if (why := known.why_not(wanted)) is not None:
            yield name, why
