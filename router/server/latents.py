"""Latents over HTTP: as base64 beside base64 pictures, as files of their own beside kept ones."""

from __future__ import annotations

import asyncio
import base64

from router.server.documents import file_reply
from router.types import GenerateResult

MEDIA_TYPE = "application/octet-stream"
ENDING = ".safetensors"
REPLY = file_reply("A safetensors file with one tensor, `latents`.", MEDIA_TYPE)


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
