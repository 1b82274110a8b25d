"""Pictures between requests and Diffusers' pipelines: handed in as PIL's, taken out of an output."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from backends._on_its_way import Here, OnItsWay, as_pixels, begin
from router.errors import InvalidRequestError
from router.types import RawImage


def to_pil(image: RawImage | None, mode: str) -> Image.Image | None:
    if image is None:
        return None
    return Image.frombytes("RGB", (image.width, image.height), image.pixels).convert(mode)


def only_image(output: Any) -> OnItsWay:
    """The one picture of a pipeline's output. A picture that the safety checker blackened is an error."""
    if any(getattr(output, "nsfw_content_detected", None) or ()):
        raise InvalidRequestError(
            "The model's safety checker withheld this picture; change `prompt` or `seed`."
        )
    image = output.images[0]
    if isinstance(image, torch.Tensor):
        return begin(as_pixels(image))
    return Here(RawImage(image.height, image.width, image.convert("RGB").tobytes()))
