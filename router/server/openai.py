"""OpenAI's Images API, as its official client speaks it: generations, edits, variations, models."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from router.errors import InvalidRequestError
from router.images import Format
from router.request import GenerateRequest
from router.server import documents, facts, latents, openai_forms, pictures, serving
from router.server.body import media_type, read_json
from router.server.errors import NotFoundError
from router.server.forms import read_form
from router.server.front import Front, front_of
from router.server.native import keep
from router.server.openai_fields import Asked, in_their_words, of_form, understand
from router.server.openai_stream import streamed
from router.server.openai_urls import IMAGE, MASK, take_urls
from router.server.picture_urls import file_at
from router.server.stopwatch import Stopwatch
from router.types import GenerateResult, RawImage

routes = APIRouter(prefix="/v1", tags=["openai"])

_REFUSALS = documents.errors(400, 401, 403, 404, 413, 415, 429, 502, 503, 504)
_OWNER = "triptych"


class OpenaiImage(BaseModel):
    b64_json: str | None = None
    url: str | None = None
    latents: str | None = None
    """Base64 of a safetensors file, or where it lies, where `latents` were asked for."""
    latents_url: str | None = None
    seed: int


class ImagesReply(BaseModel):
    created: int
    data: list[OpenaiImage]
    size: str
    output_format: Format
    background: Literal["opaque"]
    without_effect: list[str]
    meta: dict[str, Any]


class OpenaiModel(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsReply(BaseModel):
    object: Literal["list"]
    data: list[OpenaiModel]


@routes.post(
    "/images/generations",
    response_model=ImagesReply,
    responses={**documents.event_stream(), **_REFUSALS},
    openapi_extra=documents.json_body(openai_forms.Generation),
)
async def generations(request: Request) -> Response:
    """Pictures from a prompt."""
    asked = understand(await read_json(request))
    return await _answer(request, asked, asked.request(), "image_generation")


@routes.post(
    "/images/edits",
    response_model=ImagesReply,
    responses={**documents.event_stream(), **_REFUSALS},
    openapi_extra=documents.either_body(openai_forms.Edit, openai_forms.EditByUrl),
)
async def edits(request: Request) -> Response:
    """A picture changed by a prompt; with a mask, only where that is transparent, or white."""
    if media_type(request) == "application/json":
        asked, image, mask = await _read_urls(request)
    else:
        asked, image, mask = await _read_pictures(request, ("image", "mask"))
    if image is None:
        raise InvalidRequestError("`image` is missing; send a PNG, JPEG or WebP file.", param="image")
    return await _answer(request, asked, asked.request(image=image, mask_image=mask), "image_edit")


@routes.post(
    "/images/variations",
    response_model=ImagesReply,
    responses=_REFUSALS,
    openapi_extra=documents.form_body(openai_forms.Variation),
)
async def variations(request: Request) -> Response:
    """A picture made anew from itself, without a prompt."""
    asked, image, _ = await _read_pictures(request, ("image",))
    if image is None:
        raise InvalidRequestError("`image` is missing; send a PNG, JPEG or WebP file.", param="image")
    if asked.stream:
        raise InvalidRequestError("`stream` is not for variations; leave it out.", param="stream")
    return await _answer(request, asked, asked.request(image=image), "image_edit")


@routes.get("/models", response_model=ModelsReply, responses=documents.errors(401, 403))
async def models(request: Request) -> Response:
    """The configured models."""
    front = front_of(request)
    names = [model.name for model in front.router.config.models]
    return JSONResponse({"object": "list", "data": [_model(front, name) for name in names]})


@routes.get("/models/{name:path}", response_model=OpenaiModel, responses=documents.errors(401, 403, 404))
async def model(request: Request, name: str) -> Response:
    """One model."""
    front = front_of(request)
    if front.router.config.model(name) is None:
        raise NotFoundError("There is no such model; GET /v1/models lists those that there are.")
    return JSONResponse(_model(front, name))


async def _answer(
    request: Request, asked: Asked, wanted: GenerateRequest, kind: Literal["image_generation", "image_edit"]
) -> Response:
    with in_their_words():
        if asked.stream:
            return await streamed(request, asked, wanted, kind)
        result = await serving.generate(request, wanted)
    writing = Stopwatch()
    data = await _data(request, asked, result, writing)
    return JSONResponse(
        {
            "created": int(time.time()),
            "data": data,
            "size": f"{result.request.width}x{result.request.height}",
            "output_format": asked.encoding.format,
            "background": "opaque",
            "without_effect": list(asked.without_effect),
            "meta": facts.facts_of(result, writing.seconds),
        }
    )


async def _data(
    request: Request, asked: Asked, result: GenerateResult, writing: Stopwatch
) -> list[dict[str, Any]]:
    seeds = [picture.seed for picture in result.pictures if picture.image is not None]
    if asked.response_format == "b64_json":
        with writing:
            texts = await pictures.encode_text(result.images, asked.encoding)
        data = [{"b64_json": text, "seed": seed} for text, seed in zip(texts, seeds, strict=True)]
        for each, text in zip(data, await latents.texts(result), strict=False):  # none where not asked for
            each["latents"] = text
        return data
    with writing:
        files = await pictures.encode(result.images, asked.encoding)
    return await _keep(request, asked, files, result, writing.seconds)


async def _keep(
    request: Request, asked: Asked, files: Sequence[bytes], result: GenerateResult, encode_s: float
) -> list[dict[str, Any]]:
    """Whole addresses: their client hands them to whoever fetches pictures."""
    front = front_of(request)
    meta = facts.facts_of(result, encode_s)
    kept = await keep(front, files, asked.encoding.format, result, meta)
    base = front.settings.public_url or f"{request.url.scheme}://{request.url.netloc}"
    words = {"image_url": "url", "latents_url": "latents_url"}
    return [
        {"seed": each["seed"]} | {words[name]: base + each[name] for name in words if name in each}
        for each in kept
    ]


async def _read_pictures(
    request: Request, names: tuple[str, ...]
) -> tuple[Asked, RawImage | None, RawImage | None]:
    """A form's fields and pictures, at most one of each name."""
    fields, files = of_form(await read_form(request))
    for name, found in files.items():
        if name not in names:
            raise InvalidRequestError(f"`{name[:40]}` is no picture that this takes.", param=name[:40])
        if len(found) > 1:
            raise InvalidRequestError(f"`{name}` came {len(found)} times; send one picture.", param=name)
    asked = understand(fields)
    most = front_of(request).settings.max_input_pixels
    image = await pictures.decode(files["image"][0], "image", most) if "image" in files else None
    mask = await pictures.decode_mask(files["mask"][0], "mask", most) if "mask" in files else None
    return asked, image, mask


async def _read_urls(request: Request) -> tuple[Asked, RawImage | None, RawImage | None]:
    """The JSON form of the same: pictures as data URLs, or by address where that is allowed."""
    front, fields = front_of(request), await read_json(request)
    image_url, mask_url = take_urls(fields)
    asked = understand(fields)
    most = front.settings.max_input_pixels
    image = await pictures.decode(await file_at(image_url, IMAGE, front.fetch), IMAGE, most)
    if mask_url is None:
        return asked, image, None
    return asked, image, await pictures.decode_mask(await file_at(mask_url, MASK, front.fetch), MASK, most)


def _model(front: Front, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(front.started_at), "owned_by": _OWNER}
