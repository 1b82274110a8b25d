"""Pictures that are refused, each with a sentence that names the cure."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from router import images
from router.errors import InvalidRequestError
from tests.pictures import BLUE, GREEN, RED, chunk, painted, pil, png, saved, varied


def refusal(data: object, param: str = "image") -> str:
    with pytest.raises(InvalidRequestError) as caught:
        images.to_raw_image(data, param=param)
    assert caught.value.param == param
    assert f"`{param}`" in str(caught.value)
    return str(caught.value)


def test_other_types_are_refused_with_what_is_accepted():
    assert "a RawImage, a PIL image, or the bytes of a PNG, JPEG or WebP" in refusal(3)
    assert "of type list" in refusal([1, 2])


def test_paths_and_urls_are_not_opened():
    assert "read the file yourself" in refusal("/etc/passwd")
    assert "read the file yourself" in refusal("https://example.com/a.png", "mask_image")
    assert "read the file yourself" in refusal(Path("a.png"))


def test_other_formats_are_refused():
    assert "is empty" in refusal(b"")
    for format in ("GIF", "BMP", "TIFF", "PPM"):
        assert "neither PNG, JPEG nor WebP" in refusal(saved(pil(varied()), format))


@pytest.mark.parametrize("format", images.FORMATS)
def test_every_cut_of_a_file_is_refused(format: images.Format):
    whole = images.encode(varied(), format)
    for length in range(1, len(whole)):
        refusal(whole[:length])


def test_a_changed_byte_in_a_png_is_noticed():
    whole = images.encode(varied())
    for position in range(8, len(whole)):
        assert refusal(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])


@pytest.mark.parametrize("sides", [(2**31 - 1, 2**31 - 1), (10**9, 1), (5000, 5000)])
def test_a_huge_header_is_refused_by_its_size(sides: tuple[int, int]):
    said = refusal(png(*sides))
    assert f"{sides[0]}x{sides[1]} (height x width)" in said
    assert "make it smaller" in said


def test_a_huge_webp_header_is_refused():
    header = struct.pack("<4sI4s", b"VP8X", 10, b"\x10\0\0\0") + b"\xff\xff\x00" * 2
    body = b"WEBP" + header + images.encode(varied(), "webp")[12:]
    assert "make it smaller" in refusal(b"RIFF" + struct.pack("<I", len(body)) + body)


def test_the_pixel_limit_is_the_callers():
    data = images.encode(varied(12, 20))
    assert images.decode(data, max_pixels=240) == varied(12, 20)
    with pytest.raises(InvalidRequestError, match="239 pixels at most"):
        images.decode(data, max_pixels=239)
    with pytest.raises(InvalidRequestError, match="239 pixels at most"):
        images.read_metadata(data, max_pixels=239)


def test_a_pil_picture_obeys_the_limit_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 10)
    assert "10 pixels at most" in refusal(pil(varied()))


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_animated_pictures_are_refused(format: str):
    frames = [pil(painted(8, 8, colour)) for colour in (RED, GREEN, BLUE)]
    data = saved(frames[0], format, save_all=True, append_images=frames[1:])
    assert "animated (3 frames); give a single frame" in refusal(data)


@pytest.mark.parametrize("colour", [0, 2, 4, 6], ids=["gray", "rgb", "gray+alpha", "rgb+alpha"])
def test_sixteen_bits_are_refused_not_cut(colour: int):
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    data = png(2, 2, depth=16, colour=colour, pixels=(b"\0" + b"\xff" * (2 * 2 * channels)) * 2)
    assert "16 bits per channel; convert it to RGB" in refusal(data)


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "CMYK", "LAB", "HSV", "YCbCr"])
def test_other_colour_modes_are_refused(mode: str):
    assert f"colour mode {mode}; convert it to RGB" in refusal(Image.new(mode, (4, 4)))


def test_a_cmyk_jpeg_is_refused():
    assert "CMYK" in refusal(saved(Image.new("CMYK", (4, 4)), "JPEG"))


def test_real_transparency_is_refused():
    see_through = Image.new("RGBA", (4, 4), (*RED, 254))
    assert "flatten it" in refusal(saved(see_through, "PNG"))
    assert "flatten it" in refusal(saved(see_through, "WEBP"))
    assert "flatten it" in refusal(see_through, "mask_image")
    assert "flatten it" in refusal(saved(pil(painted(4, 4)), "PNG", transparency=RED))


def test_a_compressed_text_that_swells_is_refused():
    whole = images.encode(painted(4, 4))
    bomb = chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(20_000_000)))
    assert "broken" in refusal(whole[:33] + bomb + whole[33:])


def test_a_jpeg_of_countless_scans_is_refused():
    whole = saved(pil(varied(64, 64)), "JPEG", progressive=True)
    last_scan = whole[whole.rindex(b"\xff\xda") : -2]
    assert "more than 100 scans" in refusal(whole[:-2] + last_scan * 100 + whole[-2:])


@pytest.mark.filterwarnings("error")
def test_a_warning_turned_into_an_error_is_a_refusal():
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0"  # promises five entries and ends
    assert "broken" in refusal(saved(pil(varied()), "JPEG", exif=exif))
