"""RequestPreset: settings of a request under one name, those of few-step models above all."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


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
    loras: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    """Name -> weight, for a request that names no LoRA."""

    @property
    def fills(self) -> dict[str, Any]:
        """Field of the request -> the value it has if left out."""
        given = self.model_dump(exclude={"description", "loras"}, exclude_none=True)
        loras = [{"name": name, "weight": weight} for name, weight in self.loras.items()]
        return given | {"loras": loras} if loras else given


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
