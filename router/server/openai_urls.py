"""The pictures of OpenAI's edits as JSON: `{"images": [{"image_url": ...}], "mask": {"image_url": ...}}`."""

from __future__ import annotations

from typing import Any

from router.errors import InvalidRequestError

IMAGE = "images.0.image_url"
MASK = "mask.image_url"


def take_urls(fields: dict[str, Any]) -> tuple[object, object]:
    """The addresses of image and mask, the latter `None` if none came; both are taken out of `fields`."""
    images, mask = fields.pop("images", None), fields.pop("mask", None)
    if not isinstance(images, list) or len(images) != 1:
        raise InvalidRequestError('`images` must be a list of one: [{"image_url": ...}].', param="images")
    return _url_of(images[0], "images.0"), None if mask is None else _url_of(mask, "mask")


def _url_of(value: object, param: str) -> object:
    if isinstance(value, dict) and "file_id" in value:
        raise InvalidRequestError(
            f"`{param}.file_id` cannot be honoured, as no files are kept here; give `{param}.image_url`.",
            param=f"{param}.file_id",
        )
    if not isinstance(value, dict) or value.keys() != {"image_url"}:
        raise InvalidRequestError(f'`{param}` must be {{"image_url": ...}}, and no more.', param=param)
    return value["image_url"]
