"""Addresses in the place of pictures: data URLs always, http and https where the operator allows it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from router.errors import InvalidRequestError
from router.server.pictures import file_of

Fetch: TypeAlias = Callable[[str, str], Awaitable[bytes]]
"""An http or https address, and the field that holds it -> the file. Raises `InvalidRequestError`."""

FIELDS: Mapping[str, str] = {"image_url": "image", "mask_image_url": "mask_image"}
"""Field with an address -> the field that it stands for."""


async def files_of(body: Mapping[str, Any], fetch: Fetch) -> dict[str, bytes]:
    """Field with an address -> the file there. Raises `InvalidRequestError` with that field's name."""
    urls = {param: body[param] for param in FIELDS if body.get(param) is not None}
    for param in urls:
        if body.get(FIELDS[param]) is not None:
            raise InvalidRequestError(f"Give `{FIELDS[param]}` or `{param}`, not both.", param=param)
    return {param: await file_at(url, param, fetch) for param, url in urls.items()}


async def file_at(url: object, param: str, fetch: Fetch) -> bytes:
    """The file that a data URL holds, or that lies at another."""
    if not isinstance(url, str):
        raise InvalidRequestError(f"`{param}` must be the text of an address.", param=param)
    if url[:5].lower() == "data:":
        return await asyncio.to_thread(file_of, url, param)
    return await fetch(url, param)


async def refuse(url: str, param: str) -> bytes:
    """The `Fetch` of a service that fetches nothing, as is the default."""
    raise InvalidRequestError(
        f"`{param}` is an address, and this service fetches none; send the picture itself, as base64 or a"
        " data URL, or let the operator set `image_urls = true` under [server] (TRIPTYCH_SERVER_IMAGE_URLS).",
        param=param,
    )
