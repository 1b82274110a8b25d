"""Presets in use: what a request leaves out is filled in. What it says goes before its preset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.errors import InvalidRequestError
from router.preset import RequestPreset
from router.request import GenerateRequest, LoraRequest

MAX_NAMED = 20
"""Presets named in a sentence."""

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
    fills["loras"] = tuple(LoraRequest(**lora) for lora in fills.get("loras", ()))
    left_out = {field: value for field, value in fills.items() if getattr(request, field) in (None, ())}
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
