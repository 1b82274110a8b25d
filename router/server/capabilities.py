"""GET /api/v1/capabilities: one document of what can be asked here, for programs and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from router.capabilities import Capabilities
from router.config import Limits, ModelConfig
from router.images import FORMATS, Format
from router.request import MAX_PROMPT_CHARACTERS, MAX_SEED, GenerateRequest
from router.routing import ModelView, effective, nearest_size
from router.server.documents import errors
from router.server.front import Front, front_of
from router.server.openai_fields import MAX_PARTIAL_IMAGES
from router.statistics import InstanceStatus
from router.types import TASKS, RawImage, Task

routes = APIRouter(tags=["operation"])

RATIOS: tuple[tuple[int, int], ...] = ((1, 1), (16, 9), (9, 16), (4, 3), (3, 4))
"""Width to height."""
PRESETS: dict[Literal["S", "M", "L"], float] = {"S": 0.5, "M": 1.0, "L": 2.0}
"""Area, over that of the model's own size."""


class Size(BaseModel):
    ratio: str
    """`16:9`, width to height; what the size comes near to."""
    preset: Literal["S", "M", "L"]
    width: int
    height: int


class Profile(BaseModel):
    name: str
    width: int
    height: int


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
    loras: list[str] = []
    cannot: dict[str, str] = {}
    """Task or field -> the sentence why this instance does not do it."""
    notes: list[str] = []


class ModelDocument(BaseModel):
    name: str
    description: str
    licence: str
    tasks: list[Task]
    defaults: dict[str, Any]
    """What a field means that is left out."""
    sizes: list[Size]
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


class CapabilitiesDocument(BaseModel):
    default_model: str
    formats: list[Format]
    keys: bool
    """Whether an API key is wanted."""
    image_urls: bool
    """Whether pictures may be given by their http or https address."""
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
        limits=_limits(front),
        models=[
            _model(model, [status for status in statuses if status.model == model.name], config.limits)
            for model in config.models
        ],
    )


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


def _model(config: ModelConfig, statuses: Sequence[InstanceStatus], limits: Limits) -> ModelDocument:
    known = {status.name: status.capabilities for status in statuses if status.capabilities is not None}
    view = ModelView.of(config, known)
    return ModelDocument(
        name=config.name,
        description=config.description,
        licence=config.licence,
        tasks=[task for task in TASKS if any(task in each.tasks for each in known.values())],
        defaults=dict(view.fills),
        sizes=list(_sizes(view, limits)),
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
    for name in ("family", "dtype", "size_multiple", "min_side", "max_side", "schedulers", "loras", "notes"):
        facts[name] = getattr(known, name)
    profiles = [Profile(name=each.name, width=each.width, height=each.height) for each in known.profiles]
    tasks = [task for task in TASKS if task in known.tasks]
    return InstanceDocument(**facts, tasks=tasks, profiles=profiles, cannot=dict(_cannot(known, view)))


def _cannot(known: Capabilities, view: ModelView) -> Iterator[tuple[str, str]]:
    """Each task and feature, asked for at the instance's own size, in the router's own words."""
    height, width = known.defaults.height, known.defaults.width
    if known.profiles:
        height, width = known.profiles[0].height, known.profiles[0].width
    picture = RawImage(height, width, bytes(height * width * 3))
    asked: dict[str, dict[str, Any]] = {
        "text-to-image": {"height": height, "width": width},
        "image-to-image": {"image": picture},
        "inpainting": {"image": picture, "mask_image": picture},
    }
    usual = next((asked[task] for task in TASKS if task in known.tasks), {})
    guided = {"guidance_scale": 5.0, "true_cfg_scale": 5.0 if known.true_cfg else None}
    asked |= {
        "guidance_scale": {**usual, "guidance_scale": 5.0},
        "true_cfg_scale": {**usual, "true_cfg_scale": 5.0, "negative_prompt": "anything"},
        "negative_prompt": {**usual, **guided, "negative_prompt": "anything"},
        "reproducible": {**usual, "reproducible": True},
        "previews": {**usual, "previews": True},
    }
    for name, fields in asked.items():
        wanted = effective(GenerateRequest.of(prompt="anything", **fields), view, seed=0)
        if (why := known.why_not(wanted)) is not None:
            yield name, why


def _sizes(view: ModelView, limits: Limits) -> Iterator[Size]:
    """Sizes that some instance takes, near to each ratio, around the model's own area."""
    known = next((each.capabilities for each in view.instances if each.capabilities is not None), None)
    if known is None:
        return
    area = view.fills["height"] * view.fills["width"]
    for across, down in RATIOS:
        for preset, share in PRESETS.items():
            unit = (area * share / (across * down)) ** 0.5
            height, width = nearest_size(
                known, limits, max(1, round(down * unit)), max(1, round(across * unit))
            )
            if abs(width * down / (height * across) - 1) < 0.25:  # else a profile of another shape
                yield Size(ratio=f"{across}:{down}", preset=preset, width=width, height=height)
