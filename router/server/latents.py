"""Latents over HTTP: as base64 beside base64 pictures, as files of their own beside kept ones."""

from __future__ import annotations

import asyncio
import base64

from fastapi import APIRouter, Request
from starlette.responses import Response

from router.server import documents
from router.server.errors import NotFoundError
from router.server.front import front_of
from router.types import GenerateResult

routes = APIRouter(tags=["native"])

MEDIA_TYPE = "application/octet-stream"
HEADERS = {"Cache-Control": "private, max-age=3600, immutable"}
ENDING = ".safetensors"
REPLY = documents.file_reply("A safetensors file with one tensor, `latents`.", MEDIA_TYPE)


@routes.get(
    "/outputs/latents/{name}",
    responses={**REPLY, **documents.errors(401, 403, 404)},
    response_class=Response,
)
async def output_latents(request: Request, name: str) -> Response:
    """The latents of a kept picture that was asked for with them, with the key or by their signed link."""
    outputs = front_of(request).outputs
    output = outputs.find(name.removesuffix(ENDING)) if name.endswith(ENDING) else None
    data = await outputs.latents(output) if output is not None and output.has_latents else None
    if data is None:
        raise NotFoundError("There are no such latents; they were not asked for, or were removed since.")
    return Response(data, headers=HEADERS, media_type=MEDIA_TYPE)


def files(result: GenerateResult) -> list[bytes | None]:
    """Of each picture that was made, in order; `None` where none were asked for."""
    return [picture.latents for picture in result.pictures if picture.image is not None]


async def texts(result: GenerateResult) -> list[str]:
    """The same as base64 text; none at all where none were asked for."""
    return await asyncio.to_thread(lambda: [_text(data) for data in files(result) if data is not None])


def fingerprints(result: GenerateResult) -> list[str | None]:
    """Of each picture, in order, as base64 text; `None` for one that failed."""
    found = [picture.fingerprint for picture in result.pictures]
    return [None if fingerprint is None else _text(fingerprint) for fingerprint in found]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
