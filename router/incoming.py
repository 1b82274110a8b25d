"""as_request: what a caller hands over, a whole request or its fields, as one checked `GenerateRequest`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from router import images
from router.errors import InvalidRequestError
from router.request import GenerateRequest
from router.types import RawImage


async def as_request(request: object, fields: Mapping[str, Any]) -> GenerateRequest:
    """Pictures are decoded in a thread; everything else is checked here and now."""
    if request is not None:
        if not isinstance(request, GenerateRequest):
            kind = type(request).__name__
            raise InvalidRequestError(
                f"The request is of type {kind}; give the fields by name, `prompt=...`, or a GenerateRequest."
            )
        if fields:
            raise InvalidRequestError(
                f"Give a whole request or its fields, not both: {', '.join(fields)} came beside a request."
            )
        return request
    for param in ("image", "mask_image"):
        picture = fields.get(param)
        if picture is not None and not isinstance(picture, RawImage):
            raw = await asyncio.to_thread(images.to_raw_image, picture, param=param)
            fields = {**fields, param: raw}
    return GenerateRequest.of(**fields)
