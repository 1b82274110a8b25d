"""Earlier: names that earlier systems had for fields, taken beside ours by native forms and jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from router.errors import InvalidRequestError
from router.presets import preset_of_job_type

_NAMES: Mapping[str, str] = {
    "steps": "num_inference_steps",
    "batch_size": "num_images_per_prompt",
    "reference_image_url": "image_url",
    "exact_copy_mode": "exact_copy",
    "job_type": "preset",
}
"""Theirs -> ours."""


class Earlier(BaseModel):
    """The same fields by their earlier names; a field and its other name may stand together if they agree."""

    steps: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    reference_image_url: str | None = None
    exact_copy_mode: bool | None = None
    job_type: Literal["sdxl_image_fast", "sdxl_image_high"] | None = None


def in_our_names(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The body under our names, and the words to answer in: our name -> theirs, where theirs was used.

    Raises `InvalidRequestError` where a field and its other name came with different values.
    """
    fields = {name: value for name, value in body.items() if name not in _NAMES}
    words: dict[str, str] = {}
    for theirs, ours in _NAMES.items():
        value = body.get(theirs)
        if value is None:  # left out, as everywhere
            continue
        if theirs == "job_type":
            value = _preset(value)
        if fields.get(ours) not in (None, value):
            raise InvalidRequestError(
                f"`{theirs}` and `{ours}` are one field, and came with two values; give one.", param=theirs
            )
        fields[ours], words[ours] = value, theirs
    return fields, words


def _preset(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidRequestError("`job_type` must be text.", param="job_type")
    return preset_of_job_type(value)
