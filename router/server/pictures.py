"""Pictures on their way in and out: coded in a thread, so that the event loop does not wait for it.

Small ones, as previews are, are written at once: that is done before a thread wakes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from router import images
from router.errors import InvalidRequestError
from router.images import Format
from router.server import png
from router.types import RawImage

_SMALL_PIXELS = 64 * 64
_DATA_URL = re.compile(r"data:image/(?:png|jpeg|webp);base64,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the pictures of a reply are written."""

    format: Format = "png"
    quality: int | None = None
    """1 to 100, for JPEG and WebP."""


def encoding_of(format: object, quality: object) -> Encoding:
    """What the wire says of format and quality, checked; `None` is left out. Raises `InvalidRequestError`."""
    if format is not None and format not in images.FORMATS:
        raise InvalidRequestError(
            f"`output_format` must be one of {', '.join(images.FORMATS)}.", param="output_format"
        )
    if quality is not None:
        if not isinstance(quality, int) or isinstance(quality, bool) or not 1 <= quality <= 100:
            raise InvalidRequestError("`quality` must be a whole number from 1 to 100.", param="quality")
        if format in (None, "png"):
            raise InvalidRequestError("`quality` has no meaning for png; leave it out.", param="quality")
    return Encoding(next((known for known in images.FORMATS if known == format), "png"), quality)


async def decode(data: bytes, param: str, max_pixels: int) -> RawImage:
    """A picture file's pixels. Raises `InvalidRequestError` with `param`."""
    return await asyncio.to_thread(images.decode, data, max_pixels=max_pixels, param=param)


async def decode_mask(data: bytes, param: str, max_pixels: int) -> RawImage:
    """The same of a mask, whose transparent parts are to be painted anew."""
    return await asyncio.to_thread(images.decode_mask, data, max_pixels=max_pixels, param=param)


async def decode_text(text: object, param: str, max_pixels: int) -> RawImage:
    """The same of base64 text, with or without the head of a data URL."""
    return await asyncio.to_thread(_decode_text, text, param, max_pixels)


async def encode(pictures: Sequence[RawImage], encoding: Encoding) -> list[bytes]:
    """The files of all pictures, in order."""
    if _are_small(pictures):
        return _encode(pictures, encoding)
    return await asyncio.to_thread(_encode, pictures, encoding)


async def encode_text(pictures: Sequence[RawImage], encoding: Encoding) -> list[str]:
    """The same as base64 text."""
    if _are_small(pictures):
        return _encode_text(pictures, encoding)
    return await asyncio.to_thread(_encode_text, pictures, encoding)


def file_of(text: object, param: str) -> bytes:
    """The file in base64 text, with or without the head of a data URL. Takes time: call it in a thread."""
    if not isinstance(text, str):
        raise InvalidRequestError(f"`{param}` must be the base64 text of a picture file.", param=param)
    if text[:4].lower() == "http":
        raise InvalidRequestError(
            f"`{param}` must be base64, and this is an address; `{param}_url` is for addresses.", param=param
        )
    try:
        return base64.b64decode(_DATA_URL.sub("", text, count=1), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidRequestError(
            f"`{param}` is not base64; send a PNG, JPEG or WebP file as base64 text.", param=param
        ) from exc


def _are_small(pictures: Sequence[RawImage]) -> bool:
    """All of them together."""
    return sum([picture.height * picture.width for picture in pictures]) <= _SMALL_PIXELS


def _decode_text(text: object, param: str, max_pixels: int) -> RawImage:
    return images.decode(file_of(text, param), max_pixels=max_pixels, param=param)


def _encode(pictures: Sequence[RawImage], encoding: Encoding) -> list[bytes]:
    return [_file(picture, encoding) for picture in pictures]


def _file(picture: RawImage, encoding: Encoding) -> bytes:
    if encoding.format == "png" and _are_small((picture,)):
        return png.encode(picture)
    return images.encode(picture, encoding.format, quality=encoding.quality)


def _encode_text(pictures: Sequence[RawImage], encoding: Encoding) -> list[str]:
    return [base64.b64encode(file).decode("ascii") for file in _encode(pictures, encoding)]
