"""Pictures made for a test: painted, saved by Pillow, or written byte by byte."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

from router import images
from router.types import RawImage

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)


def painted(height: int, width: int, colour: tuple[int, int, int] = RED) -> RawImage:
    return RawImage(height, width, bytes(colour) * (height * width))


def varied(height: int = 12, width: int = 20) -> RawImage:
    return RawImage(height, width, bytes(index * 37 % 256 for index in range(height * width * 3)))


def pil(image: RawImage) -> Image.Image:
    return Image.frombytes("RGB", (image.width, image.height), image.pixels)


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def png(height: int, width: int, *, depth: int = 8, colour: int = 2, pixels: bytes = b"") -> bytes:
    """A PNG written by hand, so that its header may say what no library would write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def near(image: RawImage, other: RawImage, tolerance: int) -> bool:
    if (image.height, image.width) != (other.height, other.width):
        return False
    pairs = zip(image.pixels, other.pixels, strict=True)
    return all(abs(one - two) <= tolerance for one, two in pairs)


SEEDS = [
    images.encode(varied(), "png", metadata={"key": "text"}),
    images.encode(varied(), "jpeg", metadata={"key": "text"}),
    images.encode(varied(), "webp", metadata={"key": "text"}),
    saved(pil(varied()).quantize(8), "PNG", transparency=3),
    saved(pil(varied()), "JPEG", progressive=True),
    saved(pil(varied()), "WEBP", lossless=True),
    saved(pil(varied()), "WEBP", save_all=True, append_images=[pil(painted(12, 20))]),
]
