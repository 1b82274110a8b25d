"""Families: the names that people have for them, and whether a model is of the one it is said to be."""

from __future__ import annotations

from collections.abc import Mapping

NAMES: Mapping[str, str] = {
    "sd": "stable-diffusion",
    "sd1.5": "stable-diffusion",
    "sd15": "stable-diffusion",
    "stable-diffusion-1.5": "stable-diffusion",
    "sdxl": "stable-diffusion-xl",
    "sd3": "stable-diffusion-3",
    "sd3.5": "stable-diffusion-3",
    "flux.1": "flux",
}
"""Beside Diffusers' own; a family that is none of these goes by its pipeline's class."""


def family_of(type: str) -> str:
    """`sdxl` -> `stable-diffusion-xl`; what is no such name is a family's own."""
    return NAMES.get(type.strip().lower(), type.strip())


def why_not_family(model: str, type: str, found: str) -> str | None:
    """What is wrong with `models.MODEL.type` beside the family that was found; `None` if nothing is."""
    if not type or family_of(type).lower() == found.lower():
        return None
    return f"`models.{model}.type` is {type!r}, but its source is {found}; correct `type` or `source`."
