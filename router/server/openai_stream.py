"""OpenAI's streamed reply: server-sent events with partial pictures, as its client parses them."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Literal, TypeAlias

from fastapi import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from router.errors import RouterError
from router.request import GenerateRequest
from router.server import errors, facts, latents, pictures, serving
from router.server.exchange import exchange_of
from router.server.openai_fields import Asked
from router.server.stopwatch import Stopwatch
from router.types import Completed, Event, GenerateResult, Step

Kind: TypeAlias = Literal["image_generation", "image_edit"]

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def streamed(request: Request, asked: Asked, wanted: GenerateRequest, kind: Kind) -> Response:
    """The reply begins with the first event, so that a refusal is still an error reply with its status."""
    stack = AsyncExitStack()
    try:
        events = await stack.enter_async_context(serving.streaming(request, wanted))
        first = await anext(events)
    except BaseException:
        await stack.aclose()
        raise
    return _Streamed(_body(request, first, events, _Writer(asked, kind)), stack)


class _Streamed(StreamingResponse):
    """Stops the work when it ends, also where the client had left before the first byte was sent."""

    def __init__(self, body: AsyncIterator[bytes], stack: AsyncExitStack) -> None:
        super().__init__(body, media_type="text/event-stream", headers=_HEADERS)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


async def _body(
    request: Request, first: Event, events: AsyncIterator[Event], writer: _Writer
) -> AsyncIterator[bytes]:
    try:
        for message in await writer.messages(first):
            yield message
        async for event in events:
            for message in await writer.messages(event):
                yield message
    except RouterError as exc:
        exchange_of(request).code = exc.code
        yield _message("error", errors.body_of(exc) | {"type": "error"})


class _Writer:
    """Turns events into messages, and spreads the partial pictures over the steps."""

    def __init__(self, asked: Asked, kind: Kind) -> None:
        self._asked = asked
        self._kind = kind
        self._sent = 0

    async def messages(self, event: Event) -> list[bytes]:
        if isinstance(event, Completed):
            return await self._completed(event.result)
        if isinstance(event, Step) and event.preview is not None and self._is_due(event):
            self._sent += 1
            (text,) = await pictures.encode_text([event.preview], self._asked.encoding)
            size = f"{event.preview.width}x{event.preview.height}"
            facts = self._facts(size) | {"b64_json": text, "partial_image_index": self._sent - 1}
            return [_message(f"{self._kind}.partial_image", facts)]
        return []

    def _is_due(self, step: Step) -> bool:
        """Of the first picture only, evenly spread; the last step is the picture itself."""
        if step.picture or step.index >= step.total or self._sent >= self._asked.partial_images:
            return False
        return step.index * (self._asked.partial_images + 1) >= (self._sent + 1) * step.total

    async def _completed(self, result: GenerateResult) -> list[bytes]:
        with Stopwatch() as writing:
            texts = await pictures.encode_text(result.images, self._asked.encoding)
        size = f"{result.request.width}x{result.request.height}"
        meta = facts.facts_of(result, writing.seconds)
        extras = {"usage": _NO_TOKENS, "without_effect": list(self._asked.without_effect), "meta": meta}
        seeds = [picture.seed for picture in result.pictures if picture.image is not None]
        more = await latents.texts(result)
        data: list[dict[str, Any]] = [
            {"b64_json": text, "seed": seed} for text, seed in zip(texts, seeds, strict=True)
        ]
        if more:
            data = [each | {"latents": text} for each, text in zip(data, more, strict=True)]
        return [_message(f"{self._kind}.completed", self._facts(size) | each | extras) for each in data]

    def _facts(self, size: str) -> dict[str, Any]:
        return {
            "created_at": int(time.time()),
            "size": size,
            "quality": "auto",
            "background": "opaque",
            "output_format": self._asked.encoding.format,
        }


_NO_TOKENS = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
"""Their client wants the field; nothing is billed by tokens here."""


def _message(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name} | data)}\n\n".encode()
