"""Small pictures as PNG, written by our own hand: other programs read what was painted."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from router import images
from router.server import pictures, png
from router.server.pictures import Encoding
from router.types import RawImage
from tests.pictures import painted, varied


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 64), (64, 1), (12, 20), (64, 64)])
def test_every_pixel_comes_back(height: int, width: int) -> None:
    """`images.decode` holds every chunk against its checksum, which Pillow alone would not."""
    picture = varied(height, width)
    assert images.decode(png.encode(picture)) == picture


def test_it_is_plain_rgb_and_flat_pictures_are_small() -> None:
    with Image.open(io.BytesIO(png.encode(painted(64, 64)))) as read:
        read.verify()
        assert (read.format, read.mode, read.size) == ("PNG", "RGB", (64, 64))
    assert len(png.encode(painted(64, 64))) < 300


@pytest.mark.parametrize("format", images.FORMATS)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("side", [8, 64, 80])
async def test_every_size_and_format_is_written(side: int, count: int, format: images.Format) -> None:
    files = await pictures.encode([painted(side, side)] * count, Encoding(format))
    read = [images.decode(file) for file in files]
    assert [(each.height, each.width) for each in read] == [(side, side)] * count
    assert all(_is_red(each) for each in read)


def _is_red(image: RawImage) -> bool:
    red, green, blue = image.pixels[:3]
    return red > 240 and green < 15 and blue < 15
