"""The native forms: the fields of `GenerateRequest` in, pictures as addresses, base64 or bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from router.errors import InvalidRequestError
from router.footprint import facts_of
from router.images import Format
from router.request import GenerateRequest
from router.server import documents, facts, latents, picture_urls, pictures, serving
from router.server.body import read_json
from router.server.earlier import Earlier, in_our_names
from router.server.errors import body_of
from router.server.front import Front, front_of
from router.server.outputs import MEDIA_TYPES, Output
from router.server.pictures import Encoding
from router.server.stopwatch import Stopwatch
from router.server.words import in_words
from router.types import GenerateResult

routes = APIRouter(tags=["native"])

REFUSALS = documents.errors(400, 401, 403, 404, 413, 415, 429, 502, 503, 504)
_SIDES = ("height", "width")


class Written(BaseModel):
    """How the pictures are written."""

    output_format: Format = "png"
    quality: Annotated[int, Field(ge=1, le=100, strict=True)] | None = None
    """1 to 100, for JPEG and WebP."""


class Addressed(BaseModel):
    """Pictures by their address: a data URL, or where the operator allows it an http or https one."""

    image_url: str | None = None
    """Instead of `image`."""
    mask_image_url: str | None = None
    """Instead of `mask_image`."""


class NativeRequest(GenerateRequest, Written, Addressed, Earlier):
    """The body of the native forms, as the OpenAPI document shows it."""


class ExplainRequest(GenerateRequest, Addressed, Earlier):
    """The same without what is about writing pictures."""


class Kept(BaseModel):
    id: str
    image_url: str
    meta_url: str
    latents_url: str | None = None
    """Where `latents` were asked for."""
    seed: int


class NativeReply(Kept):
    """The first picture's addresses, every picture's, and the facts of all."""

    images: list[Kept]
    meta: dict[str, Any]


class EncodedReply(BaseModel):
    image_base64: str
    """The first picture."""
    images: list[str]
    latents: list[str] = []
    """Where asked for: base64 of a safetensors file for each picture."""
    media_type: str
    meta: dict[str, Any]


class EstimateReply(BaseModel):
    weights_bytes: int
    denoise_bytes: int
    decode_bytes: int
    needed_bytes: int
    """Weights, and the larger of the two others; their sum where the instance decodes beside denoising."""
    budget_bytes: int | None
    measured: list[Literal["denoise", "decode"]]
    """Those that were measured on this device; the others follow from a formula."""


class ExplainReply(BaseModel):
    model: str
    task: str
    parameters: dict[str, Any]
    candidates: list[str]
    rejections: dict[str, str]
    adjustments: list[str]
    estimates: dict[str, EstimateReply]
    """Instance -> bytes that the request would take there, for those that are known."""
    error: documents.ErrorDetail | None


@routes.post(
    "/api/v1/generate",
    response_model=NativeReply,
    responses=REFUSALS,
    openapi_extra=documents.json_body(NativeRequest),
)
async def generate(request: Request) -> Response:
    """Make the pictures and keep them under `/outputs`."""
    result, encoding = await made(request, await read_json(request))
    with Stopwatch() as writing:
        files = await pictures.encode(result.images, encoding)
    meta = facts.facts_of(result, writing.seconds)
    images = await keep(front_of(request), files, encoding.format, result, meta)
    return JSONResponse({**images[0], "images": images, "meta": meta})


@routes.post(
    "/image/generate",
    response_model=EncodedReply,
    responses=REFUSALS,
    openapi_extra=documents.json_body(NativeRequest),
)
async def generate_encoded(request: Request) -> Response:
    """Make the pictures and return them as base64; nothing is kept."""
    result, encoding = await made(request, await read_json(request))
    with Stopwatch() as writing:
        images = await pictures.encode_text(result.images, encoding)
    reply = {
        "image_base64": images[0],
        "images": images,
        "media_type": MEDIA_TYPES[encoding.format],
        "meta": facts.facts_of(result, writing.seconds),
    }
    return JSONResponse(reply | ({"latents": await latents.texts(result)} if result.request.latents else {}))


@routes.post(
    "/generate",
    responses={**documents.picture_reply("The picture's bytes; the facts are in the headers."), **REFUSALS},
    openapi_extra=documents.json_body(NativeRequest, without=("num_images_per_prompt",)),
    response_class=Response,
)
async def generate_bytes(request: Request) -> Response:
    """Make one picture and return its bytes; it is kept only where `latents` are asked for."""
    result, encoding = await made(request, await read_json(request), several=False)
    return await as_bytes(front_of(request), result, encoding)


@routes.post(
    "/api/v1/explain",
    response_model=ExplainReply,
    responses=REFUSALS,
    openapi_extra=documents.json_body(ExplainRequest),
)
async def explain(request: Request) -> Response:
    """Who would serve the request, in which order, and why the others would not. Nothing is run."""
    front = front_of(request)
    fields, theirs = in_our_names(await read_json(request))
    with in_words(theirs):
        route = await front.router.explain(await _request_of(front, fields))
    return JSONResponse(
        {
            "model": route.model,
            "task": route.request.task,
            "parameters": facts.parameters_of(route.request),
            "candidates": list(route.candidates),
            "rejections": dict(route.rejections),
            "adjustments": list(route.adjustments),
            "estimates": {name: facts_of(each) for name, each in route.estimates.items()},
            "error": None if route.candidates else body_of(route.refusal())["error"],
        }
    )


async def as_bytes(front: Front, result: GenerateResult, encoding: Encoding) -> Response:
    """The one picture's file, with the facts in the headers, and where its latents are kept."""
    with Stopwatch() as writing:
        (file,) = await pictures.encode(result.images, encoding)
    headers = facts.headers_of(result, writing.seconds)
    if result.request.latents:
        meta = facts.facts_of(result, writing.seconds)
        (kept,) = await keep(front, [file], encoding.format, result, meta)
        (fingerprint,) = meta["fingerprints"]
        headers |= {"X-Triptych-Latents": kept["latents_url"], "X-Triptych-Fingerprint": fingerprint}
    return Response(file, headers=headers, media_type=MEDIA_TYPES[encoding.format])


async def keep(
    front: Front, files: Sequence[bytes], format: Format, result: GenerateResult, meta: dict[str, Any]
) -> list[dict[str, Any]]:
    """Where each picture that was made is kept, as the replies say it."""
    made = [picture for picture in result.pictures if picture.image is not None]
    kept = await asyncio.gather(
        *[
            front.outputs.keep(file, format, meta, picture.latents)
            for file, picture in zip(files, made, strict=True)
        ]
    )
    return [_kept(front, output, picture.seed) for output, picture in zip(kept, made, strict=True)]


async def made(
    request: Request, body: dict[str, Any], *, several: bool = True
) -> tuple[GenerateResult, Encoding]:
    """Answered in the words that were used: earlier names, and `size` or `aspect_ratio` instead of sides."""
    fields, theirs = in_our_names(body)
    if not several:
        _check_single(fields, theirs)
    encoding = pictures.encoding_of(fields.pop("output_format", None), fields.pop("quality", None))
    named = next((name for name in ("size", "aspect_ratio") if fields.get(name) is not None), None)
    with in_words(theirs | (dict.fromkeys(_SIDES, named) if named else {})):
        wanted = await _request_of(front_of(request), fields)
        return await serving.generate(request, wanted), encoding


def _check_single(fields: Mapping[str, Any], theirs: Mapping[str, str]) -> None:
    if fields.get("num_images_per_prompt", 1) != 1:
        param = theirs.get("num_images_per_prompt", "num_images_per_prompt")
        raise InvalidRequestError(
            f"`{param}` must be 1 here; POST /api/v1/generate makes several.", param=param
        )


async def _request_of(front: Front, fields: dict[str, Any]) -> GenerateRequest:
    """The fields as they came, with the pictures fetched, and decoded in a thread."""
    most = front.settings.max_input_pixels
    files = await picture_urls.files_of(fields, front.fetch)
    for param, field in picture_urls.FIELDS.items():
        fields.pop(param, None)
        if param in files:
            fields[field] = await pictures.decode(files[param], param, most)
        elif fields.get(field) is not None:
            fields[field] = await pictures.decode_text(fields[field], field, most)
    return GenerateRequest.of(**fields)


def _kept(front: Front, output: Output, seed: int) -> dict[str, Any]:
    sign = front.links.sign
    return {
        "id": output.id,
        "image_url": sign(output.image_path),
        "meta_url": sign(output.meta_path),
        **({"latents_url": sign(output.latents_path)} if output.latents_path else {}),
        "seed": seed,
    }
