"""Latents of the fake's pictures: a safetensors file written by hand, as nothing need be installed for it."""

from __future__ import annotations

import json
import struct

from backends._lane import WithLatents
from router.types import RawImage

_CELL = 8
_CHANNELS = 4
_FINGERPRINT_CELLS = 8 * 8


def with_latents(image: RawImage, pixel: bytes) -> WithLatents:
    """The picture beside latents [4, height / 8, width / 8], each channel one number, made of its colour."""
    height, width = max(1, image.height // _CELL), max(1, image.width // _CELL)
    channels = [value / 255 for value in (*pixel, pixel[0])]
    content = b"".join(_repeated(value, height * width) for value in channels)
    header = {
        "latents": {
            "dtype": "F16",
            "shape": [_CHANNELS, height, width],
            "data_offsets": [0, len(content)],
        }
    }
    text = json.dumps(header).encode()
    fingerprint = b"".join(_repeated(value, _FINGERPRINT_CELLS) for value in channels)
    return WithLatents(image, struct.pack("<Q", len(text)) + text + content, fingerprint)


def _repeated(value: float, times: int) -> bytes:
    return struct.pack("<e", value) * times
