"""Pictures out: metadata, what cannot be written, and the contact sheet."""

from __future__ import annotations

import pytest
from PIL import Image

from router import images
from router.contact_sheet import contact_sheet
from router.errors import InvalidRequestError
from router.types import RawImage
from tests.pictures import BLUE, GREEN, RED, WHITE, painted, pil, saved, varied

# --- one picture


@pytest.mark.parametrize("format", images.FORMATS)
def test_metadata_comes_back(format: images.Format):
    metadata = {"triptych": '{"prompt": "a red circle, 赤い円"}', "Software": "Triptych"}
    assert images.read_metadata(images.encode(varied(), format, metadata=metadata)) == metadata


@pytest.mark.parametrize("format", images.FORMATS)
def test_no_metadata_is_an_empty_mapping(format: images.Format):
    assert images.read_metadata(images.encode(varied(), format)) == {}


def test_the_description_of_others_is_read():
    exif = Image.Exif()
    exif[0x010E] = "a circle"
    assert images.read_metadata(saved(pil(varied()), "JPEG", exif=exif)) == {"description": "a circle"}


@pytest.mark.parametrize(
    ("options", "param", "words"),
    [
        ({"format": "gif"}, "format", "png, jpeg, webp"),
        ({"format": "png", "quality": 80}, "quality", "leave it out"),
        ({"format": "jpeg", "quality": 0}, "quality", "1 to 100"),
        ({"format": "webp", "quality": 101}, "quality", "1 to 100"),
        ({"format": "jpeg", "metadata": {"a": "b" * 70_000}}, "metadata", "png"),
    ],
)
def test_what_cannot_be_written_is_refused(options: dict[str, object], param: str, words: str):
    with pytest.raises(InvalidRequestError, match=words) as caught:
        images.encode(varied(), **options)
    assert caught.value.param == param


def test_a_picture_too_large_for_webp_is_refused():
    with pytest.raises(InvalidRequestError, match="choose png"):
        images.encode(painted(1, 17_000), "webp")


# --- the contact sheet


def pixel(image: RawImage, row: int, column: int) -> tuple[int, ...]:
    start = (row * image.width + column) * 3
    return tuple(image.pixels[start : start + 3])


def test_a_contact_sheet_shows_the_pictures_in_reading_order():
    sheet = contact_sheet([painted(10, 10, colour) for colour in (RED, GREEN, BLUE)])
    half, third = sheet.height // 2, sheet.width // 2
    assert pixel(sheet, half // 2, third // 2) == RED
    assert pixel(sheet, half // 2, third + third // 2) == GREEN
    assert pixel(sheet, half + half // 2, third // 2) == BLUE
    assert pixel(sheet, half + half // 2, third + third // 2) == WHITE


def test_columns_decide_the_form_of_the_sheet():
    wide = contact_sheet([painted(10, 10)] * 4, columns=4)
    tall = contact_sheet([painted(10, 10)] * 4, columns=1)
    assert (wide.height, wide.width) == (tall.width, tall.height)
    assert wide.width > 3 * wide.height


def test_a_sheet_holds_pictures_of_several_sizes():
    sheet = contact_sheet([painted(10, 40), painted(30, 10)])
    assert sheet.height >= 30
    assert sheet.width >= 80


def test_a_sheet_needs_pictures_and_columns():
    with pytest.raises(InvalidRequestError, match="at least one picture"):
        contact_sheet([])
    with pytest.raises(InvalidRequestError, match="columns"):
        contact_sheet([varied()], columns=0)
