"""The routes of the Jobs form: hand in, look, follow, fetch, take back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, cast

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from router.errors import InvalidRequestError
from router.images import Format
from router.server import documents, latents, picture_urls
from router.server.access import LINK
from router.server.body import read_json
from router.server.earlier import in_our_names
from router.server.errors import NotFoundError
from router.server.exchange import exchange_of
from router.server.front import Front, front_of
from router.server.jobs import submission
from router.server.jobs.documents import LAST_EVENT, JobDocument, JobPage, document, event
from router.server.jobs.feed import News
from router.server.jobs.job import Job
from router.server.native import NativeRequest
from router.server.output_routes import CACHED
from router.server.outputs import MEDIA_TYPES
from router.server.words import in_words

routes = APIRouter(tags=["jobs"])

MAX_PAGE = 100
_PAGE = 20
_PING_S = 15.0
_PING = b": still here\n\n"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "1 to 255 visible ASCII characters. The same key and body give the same job again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_PAGING = [
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": _PAGE},
    },
    {"name": "after", "in": "query", "description": "The id of a job.", "schema": {"type": "string"}},
]


@routes.post(
    "/v1/jobs",
    status_code=202,
    response_model=JobDocument,
    responses=documents.errors(400, 401, 403, 404, 413, 415, 422, 429, 503),
    openapi_extra={**documents.json_body(NativeRequest), "parameters": [_IDEMPOTENCY]},
)
async def submit(request: Request) -> Response:
    """Accept a job: it is on the disk when this answers, and survives whatever becomes of the service."""
    front, exchange = front_of(request), exchange_of(request)
    with front.at_work():
        body, theirs = in_our_names(await read_json(request))
        key = request.headers.get("idempotency-key")
        job, is_new = None, False
        if key is not None:
            claim = await asyncio.to_thread(submission.claim, exchange.key, body, key)
            job = await front.jobs.earlier(claim)
        if job is None:
            with in_words(theirs):
                job, is_new = await _accepted(front, exchange.key, body, key)
    exchange.facts["job"] = job.id
    headers = {"Location": f"/v1/jobs/{job.id}"} | ({} if is_new else {"Idempotency-Replayed": "true"})
    return JSONResponse(_shown(front, job), 202, headers)


async def _accepted(front: Front, owner: str, body: Mapping[str, Any], key: str | None) -> tuple[Job, bool]:
    """The job, and whether it is new. Only here are pictures fetched and decoded, and quotas charged."""
    files = await picture_urls.files_of(body, front.fetch)
    most = front.settings.max_input_pixels
    draft, wanted = await asyncio.to_thread(submission.read, owner, body, key, most, files)
    front.quotas.charge(owner, wanted.num_images_per_prompt)
    return await front.jobs.submit(draft, wanted)


@routes.get(
    "/v1/jobs",
    response_model=JobPage,
    responses=documents.errors(400, 401, 403, 404, 503),
    openapi_extra={"parameters": _PAGING},
)
async def page(request: Request) -> Response:
    """The jobs of this key, newest first."""
    front = front_of(request)
    limit, after = _limit(request.query_params.get("limit")), request.query_params.get("after")
    jobs, has_more = await front.jobs.page(exchange_of(request).key, limit, after)
    data = [_shown(front, job) for job in jobs]
    return JSONResponse({"object": "list", "data": data, "has_more": has_more})


@routes.get("/v1/jobs/{id}", response_model=JobDocument, responses=documents.errors(401, 403, 404, 503))
async def find(request: Request, id: str) -> Response:
    """How the job stands, and its result."""
    front = front_of(request)
    return JSONResponse(_shown(front, await front.jobs.find(_reader(request), id)))


@routes.delete("/v1/jobs/{id}", response_model=JobDocument, responses=documents.errors(401, 403, 404, 503))
async def remove(request: Request, id: str) -> Response:
    """Cancel a job that is not finished, which ends its work within a step; forget one that has ended."""
    front = front_of(request)
    return JSONResponse(_shown(front, await front.jobs.remove(exchange_of(request).key, id)))


@routes.get(
    "/v1/jobs/{id}/events",
    responses={
        **documents.event_stream(),
        204: {"description": "`Last-Event-ID` was the last event there is; an EventSource stops here."},
        **documents.errors(401, 403, 404, 503),
    },
    response_class=StreamingResponse,
)
async def events(request: Request, id: str) -> Response:
    """How the job stands, then `queued`, `loading`, `running`, `step`, and `done`, `failed` or `cancelled`.

    Each has the job's `id` and `state`; the last one is the whole job. A reader who is slow misses
    steps, never the end.
    """
    front, reader = front_of(request), _reader(request)
    job = await front.jobs.find(reader, id)
    if not job.is_unfinished and request.headers.get("last-event-id") == LAST_EVENT:
        return Response(status_code=204)
    news = cast("AsyncGenerator[News]", front.jobs.follow(reader, id))
    return StreamingResponse(_told(front, id, news), media_type="text/event-stream", headers=_HEADERS)


@routes.get(
    "/v1/jobs/{id}/images/{index}",
    responses={**documents.picture_reply("The picture's bytes."), **documents.errors(401, 403, 404, 503)},
    response_class=Response,
)
async def image(request: Request, id: str, index: str) -> Response:
    """A picture of the result."""
    front, reader = front_of(request), _reader(request)
    job = await front.jobs.find(reader, id)
    data = await front.jobs.picture(reader, id, _place(index))
    format: Format = job.parameters.get("output_format", "png")
    return Response(data, headers=CACHED, media_type=MEDIA_TYPES[format])


@routes.get(
    "/v1/jobs/{id}/latents/{index}",
    responses={**latents.REPLY, **documents.errors(401, 403, 404, 503)},
    response_class=Response,
)
async def picture_latents(request: Request, id: str, index: str) -> Response:
    """The latents of a picture of the result, for a job that asked for them."""
    data = await front_of(request).jobs.latents(_reader(request), id, _place(index))
    return Response(data, headers=CACHED, media_type=latents.MEDIA_TYPE)


async def _told(front: Front, id: str, news: AsyncGenerator[News]) -> AsyncIterator[bytes]:
    async with aclosing(news):
        number = 0
        async for each in _with_pings(news):
            number += 1
            yield _PING if each is None else await event(id, number, each, front.links)


async def _with_pings(news: AsyncGenerator[News]) -> AsyncIterator[News | None]:
    """`None` where nothing came for a while: proxies and the system see that the stream is alive."""
    coming = asyncio.ensure_future(anext(news, None))
    try:
        while True:
            done, _ = await asyncio.wait([coming], timeout=_PING_S)
            if not done:
                yield None
            elif (each := coming.result()) is None:
                return
            else:
                yield each
                coming = asyncio.ensure_future(anext(news, None))
    finally:
        coming.cancel()
        await asyncio.wait([coming])


def _reader(request: Request) -> str | None:
    """The owner that a job must have; whoever has a signed link may read that one job."""
    key = exchange_of(request).key
    return None if key == LINK else key


def _shown(front: Front, job: Job) -> dict[str, Any]:
    return document(job, front.jobs.progress(job), front.links).model_dump(mode="json")


def _place(index: str) -> int:
    if not (index.isascii() and index.isdigit() and len(index) < 10):
        raise NotFoundError("That job has no such picture; its `images` lists those that it has.")
    return int(index)


def _limit(given: str | None) -> int:
    if given is None:
        return _PAGE
    if given.isascii() and given.isdigit() and len(given) < 10 and 1 <= int(given) <= MAX_PAGE:
        return int(given)
    raise InvalidRequestError(f"`limit` must be a whole number from 1 to {MAX_PAGE}.", param="limit")
