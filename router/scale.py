"""Scale: what a request to make a picture larger may say, and why an upscaler cannot do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.errors import InvalidRequestError

if TYPE_CHECKING:
    from router.capabilities import Capabilities
    from router.request import GenerateRequest

MOST_PIXELS = 4096 * 4096
"""Of the larger picture."""

_FOR_PAINTING = ("strength", "reference_strength", "enhance")


def check_scale(request: GenerateRequest) -> None:
    """Raise `InvalidRequestError` for what has no place beside `scale`."""
    if request.scale is None:
        return
    if request.image is None:
        raise InvalidRequestError("`scale` makes an `image` larger; give one.", param="scale")
    if request.mask_image is not None:
        raise InvalidRequestError(
            "`mask_image` has no place beside `scale`: the whole picture is made larger.", param="mask_image"
        )
    for field in _FOR_PAINTING:
        value = getattr(request, field)
        if value is not None and value is not False:
            raise InvalidRequestError(
                f"`{field}` has no place beside `scale`: nothing is painted anew; leave it out.", param=field
            )
    pixels = request.image.height * request.image.width * request.scale**2
    if pixels > MOST_PIXELS:
        raise InvalidRequestError(
            f"`scale` {request.scale} makes {pixels:,} pixels of this picture, and {MOST_PIXELS:,} is the"
            " most; give a smaller one.",
            param="scale",
        )


def scale_reason(capabilities: Capabilities, request: GenerateRequest) -> str | None:
    """Why an instance does not make the picture larger as asked."""
    if request.scale not in capabilities.scales:
        scales = " or ".join(map(str, capabilities.scales))
        return f"`scale` must be {scales} for this upscaler, not {request.scale}."
    if capabilities.resamples and "upscaler" not in request.allow_adjustments:
        return (
            "Lanczos resampling adds no detail; allow it with `upscaler` in `allow_adjustments`, or configure"
            " a model that makes pictures larger."
        )
    if capabilities.prompts:
        return None
    asked = {
        "prompt": bool(request.prompt.strip()),
        "num_inference_steps": request.num_inference_steps not in (None, 1),
        "num_images_per_prompt": request.num_images_per_prompt > 1,
    }
    without_effect = (field for field, is_asked in asked.items() if is_asked)
    return next(
        (f"`{field}` has no effect on this upscaler; leave it out." for field in without_effect), None
    )
