"""Presets: settings under one name, those of few-step models above all. A request's own go before them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from router.errors import InvalidRequestError

if TYPE_CHECKING:
    from router.request import GenerateRequest

MAX_NAMED = 20
"""Presets named in a sentence."""


class RequestPreset(BaseModel):
    """`[presets.NAME]` of triptych.toml: fields of the request, and the values they have if left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    scheduler: Annotated[str, Field(min_length=1)] | None = None
    """By any of its names; `trailing`, `leading` or `linspace` behind it is the timesteps' spacing."""
    num_inference_steps: Annotated[int, Field(ge=1, strict=True)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    """Left out for a model that has no guidance to scale."""
    refiner_start: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None

    @property
    def fills(self) -> dict[str, Any]:
        """Field of the request -> the value it has if left out."""
        return self.model_dump(exclude={"description"}, exclude_none=True)


BUILT_IN: Mapping[str, RequestPreset] = MappingProxyType(
    {
        "lcm": RequestPreset(
            description="4 steps, for latent consistency models and their LoRAs",
            scheduler="lcm",
            num_inference_steps=4,
            guidance_scale=1.0,
        ),
        "turbo": RequestPreset(
            description="4 steps without guidance, for SD Turbo and SDXL Turbo",
            scheduler="euler a trailing",
            num_inference_steps=4,
            guidance_scale=0.0,
        ),
        "lightning": RequestPreset(
            description="4 steps without guidance, for SDXL Lightning",
            scheduler="euler trailing",
            num_inference_steps=4,
            guidance_scale=0.0,
        ),
        "fast": RequestPreset(
            description="15 steps, for any model that is not distilled",
            scheduler="dpm++ 2m karras",
            num_inference_steps=15,
        ),
        "high": RequestPreset(
            description="40 steps, for any model that is not distilled",
            scheduler="dpm++ 2m karras",
            num_inference_steps=40,
        ),
    }
)
"""Scheduler, spacing and guidance are those of the models' own cards. Turbo was made for 1 to 4 steps,
Lightning for 2 to 8; 4 leave image-to-image some to do. Those of triptych.toml go before these."""

_JOB_TYPES: Mapping[str, str] = {"sdxl_image_fast": "fast", "sdxl_image_high": "high"}


def with_preset(
    request: GenerateRequest, presets: Mapping[str, RequestPreset], model_fills: Mapping[str, Any]
) -> GenerateRequest:
    """The request with what its preset has for the fields that it leaves out.

    `model_fills` are the model's defaults. Raises `InvalidRequestError` for a preset that is not there.
    """
    if request.preset is None:
        return request
    preset = presets.get(request.preset)
    if preset is None:
        raise InvalidRequestError(
            f"There is no `preset` {request.preset!r}; there are {_list(presets)}.", param="preset"
        )
    fills = preset.fills
    if "guidance_scale" not in model_fills:
        fills.pop("guidance_scale", None)
    left_out = {field: value for field, value in fills.items() if getattr(request, field) is None}
    return request.model_copy(update=left_out)


def preset_of_job_type(job_type: str) -> str:
    """The preset that an earlier system's job type stands for. Raises `InvalidRequestError`."""
    if job_type not in _JOB_TYPES:
        raise InvalidRequestError(
            f"`job_type` is {job_type[:40]!r}, but must be one of {_list(_JOB_TYPES)}.", param="job_type"
        )
    return _JOB_TYPES[job_type]


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(list(names)[:MAX_NAMED])
