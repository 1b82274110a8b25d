"""The kept pictures by their addresses, with the facts and the latents beside them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from router.server import documents, latents
from router.server.errors import NotFoundError
from router.server.front import front_of
from router.server.outputs import MEDIA_TYPES

routes = APIRouter(tags=["native"])

CACHED = {"Cache-Control": "private, max-age=3600, immutable"}
"""Kept files never change; only the browser may keep them, as the link may be signed."""


@routes.get(
    "/outputs/images/{name}",
    responses={**documents.picture_reply("The picture's bytes."), **documents.errors(401, 403, 404)},
    response_class=Response,
)
async def output_image(request: Request, name: str) -> Response:
    """A kept picture, with the key or by its signed link."""
    id, _, ending = name.partition(".")
    output = front_of(request).outputs.find(id)
    data = None
    if output is not None and output.format == ending:
        data = await front_of(request).outputs.image(output)
    if output is None or data is None:
        raise NotFoundError("There is no such picture; it was never made, or was removed since.")
    return Response(data, headers=CACHED, media_type=MEDIA_TYPES[output.format])


@routes.get(
    "/outputs/metadata/{name}",
    response_model=dict[str, Any],
    responses=documents.errors(401, 403, 404),
)
async def output_meta(request: Request, name: str) -> Response:
    """The facts of a kept picture, with the key or by their signed link."""
    outputs = front_of(request).outputs
    output = outputs.find(name.removesuffix(".json")) if name.endswith(".json") else None
    data = None if output is None else await outputs.meta(output)
    if data is None:
        raise NotFoundError("There are no such facts; the picture was never made, or was removed since.")
    return Response(data, headers=CACHED, media_type="application/json")


@routes.get(
    "/outputs/latents/{name}",
    responses={**latents.REPLY, **documents.errors(401, 403, 404)},
    response_class=Response,
)
async def output_latents(request: Request, name: str) -> Response:
    """The latents of a kept picture that was asked for with them, with the key or by their signed link."""
    outputs = front_of(request).outputs
    output = outputs.find(name.removesuffix(latents.ENDING)) if name.endswith(latents.ENDING) else None
    data = await outputs.latents(output) if output is not None and output.has_latents else None
    if data is None:
        raise NotFoundError("There are no such latents; they were not asked for, or were removed since.")
    return Response(data, headers=CACHED, media_type=latents.MEDIA_TYPE)
