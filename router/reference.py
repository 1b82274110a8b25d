"""Reference: how near a picture stays to the `image` it starts from, in the three ways to ask for it.

`strength` 0 keeps the picture and 1 ignores it; `reference_strength` is the same seen from the picture,
1 - `strength`; `exact_copy` asks for the picture again, as near as the model's own coding of it allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from router.errors import InvalidRequestError
from router.types import ReferenceMode

if TYPE_CHECKING:
    from router.request import GenerateRequest

MOST_COPY_STRENGTH = 0.05
"""Of an exact copy: one step of twenty."""
COPY_GUIDANCE = 1.0
"""None: the prompt does not pull at a copy."""

_NEED_AN_IMAGE = {
    "strength": "says how far to move from an `image`",
    "reference_strength": "says how near to stay to an `image`",
    "exact_copy": "copies an `image`",
}


def mode_of(request: GenerateRequest) -> ReferenceMode:
    """What becomes of the picture in `image`."""
    if request.image is None or request.task == "upscale":
        return "none"
    return "copy" if request.exact_copy else "modify"


def check_reference(request: GenerateRequest) -> None:
    """Raise `InvalidRequestError` for fields that contradict each other; the sentence names them."""
    if request.strength is None and request.reference_strength is None and not request.exact_copy:
        return
    for field, does in _NEED_AN_IMAGE.items():
        if request.image is None and getattr(request, field) not in (None, False):
            raise InvalidRequestError(f"`{field}` {does}; give one or leave `{field}` out.", param=field)
    if request.strength is not None and request.reference_strength is not None:
        raise InvalidRequestError(
            "`strength` and `reference_strength` say the same from two sides; give one of them.",
            param="reference_strength",
        )
    if request.exact_copy:
        _check_copy(request)


def settled(request: GenerateRequest, filled: Mapping[str, Any]) -> dict[str, Any]:
    """The values that `reference_strength` and `exact_copy` come to, over the defaults in `filled`.

    A copy has its steps raised, where the request names none, until its strength leaves one to do.
    """
    strength = request.strength
    if request.reference_strength is not None:
        strength = round(1 - request.reference_strength, 6)
    if not request.exact_copy:
        return {} if strength is None else {"strength": strength, "reference_strength": None}
    strength = MOST_COPY_STRENGTH if strength is None else strength
    values: dict[str, Any] = {"strength": strength, "reference_strength": None, "negative_prompt": None}
    if "guidance_scale" in filled:
        values["guidance_scale"] = COPY_GUIDANCE
    if "num_inference_steps" in filled and strength:
        values["num_inference_steps"] = max(filled["num_inference_steps"], math.ceil(1 / strength))
    return values


def _check_copy(request: GenerateRequest) -> None:
    most, least = MOST_COPY_STRENGTH, 1 - MOST_COPY_STRENGTH
    strength, reference = request.strength, request.reference_strength
    contradictions = {
        "strength": strength is not None and strength > most and f"must be at most {most}",
        "reference_strength": reference is not None and reference < least and f"must be at least {least}",
        "guidance_scale": request.guidance_scale not in (None, COPY_GUIDANCE) and f"must be {COPY_GUIDANCE}",
        "true_cfg_scale": request.true_cfg_scale not in (None, 1.0) and "must be 1.0",
        "negative_prompt": bool(request.negative_prompt) and "must be empty",
        "enhance": request.enhance is True and "has no place",
        "mask_image": request.mask_image is not None and "has no place",
        "scale": request.scale is not None and "has no place",
    }
    for field, what in contradictions.items():
        if what:
            raise InvalidRequestError(
                f"`{field}` {what} beside `exact_copy`; leave one of the two out.", param=field
            )
