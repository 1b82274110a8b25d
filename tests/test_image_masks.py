"""decode_mask: transparency becomes white, as OpenAI's clients mean it; any other file is a mask already."""

from __future__ import annotations

import pytest
from PIL import Image

from router import images
from router.errors import InvalidRequestError
from tests.pictures import painted, pil, saved, varied


def with_hole(mode: str = "RGBA") -> Image.Image:
    """Opaque but for the left half."""
    mask = Image.new("RGBA", (8, 4), (9, 9, 9, 255))
    mask.paste((200, 0, 0, 0), (0, 0, 4, 4))
    return mask.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_painted_anew(mode: str) -> None:
    mask = images.decode_mask(saved(with_hole(mode), "PNG"))
    row = b"\xff" * 12 + b"\x00" * 12
    assert mask.pixels == row * 4


def test_a_palette_with_a_transparent_colour_is_a_mask_too() -> None:
    file = saved(pil(painted(4, 8)).quantize(2), "PNG", transparency=0)
    assert images.decode_mask(file).pixels == b"\xff" * (4 * 8 * 3)


def test_a_file_without_transparency_is_taken_as_it_is() -> None:
    assert images.decode_mask(images.encode(varied())) == varied()


def test_its_limits_are_those_of_pictures() -> None:
    with pytest.raises(InvalidRequestError, match="`mask`") as caught:
        images.decode_mask(saved(with_hole(), "PNG"), max_pixels=31)
    assert caught.value.param == "mask"
