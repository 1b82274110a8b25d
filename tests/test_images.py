"""Pictures in and out: what is read, what is refused with which sentence, and that no bytes break it."""

from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from router import images
from router.errors import ConfigError, InvalidRequestError
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


def refusal(data: object, param: str = "image") -> str:
    with pytest.raises(InvalidRequestError) as caught:
        images.to_raw_image(data, param=param)
    assert caught.value.param == param
    assert f"`{param}`" in str(caught.value)
    return str(caught.value)


def near(image: RawImage, other: RawImage, tolerance: int) -> bool:
    if (image.height, image.width) != (other.height, other.width):
        return False
    pairs = zip(image.pixels, other.pixels, strict=True)
    return all(abs(one - two) <= tolerance for one, two in pairs)


# What is read


def test_png_keeps_every_pixel():
    assert images.decode(images.encode(varied())) == varied()


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_lossy_formats_keep_the_picture(format: images.Format):
    assert near(images.decode(images.encode(painted(32, 24), format)), painted(32, 24), tolerance=6)


def test_quality_makes_smaller_files():
    small, large = (images.encode(varied(), "jpeg", quality=quality) for quality in (10, 95))
    assert len(small) < len(large)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_takes_every_kind_of_bytes(kind: type):
    assert images.to_raw_image(kind(images.encode(varied()))) == varied()


def test_takes_raw_and_pil_pictures():
    assert images.to_raw_image(varied()) is not None
    assert images.to_raw_image(pil(varied())) == varied()


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_gray_and_palette_become_rgb(mode: str):
    picture = Image.new("RGB", (4, 3), WHITE).convert(mode)
    assert images.decode(saved(picture, "PNG")) == painted(3, 4, WHITE)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opaque_alpha_is_dropped(mode: str):
    picture = Image.new("RGB", (4, 3), WHITE).convert(mode)
    assert images.decode(saved(picture, "PNG")) == painted(3, 4, WHITE)
    assert images.to_raw_image(picture) == painted(3, 4, WHITE)


def test_a_phone_picture_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held a quarter turn to the left
    upright = pil(varied(12, 20))
    sideways = upright.transpose(Image.Transpose.ROTATE_90)
    assert images.decode(saved(sideways, "PNG", exif=exif)) == varied(12, 20)
    decoded = images.decode(saved(sideways, "JPEG", exif=exif))
    assert (decoded.height, decoded.width) == (12, 20)


def test_a_phone_picture_with_a_second_one_inside_is_read():
    second = [pil(painted(4, 4))]
    data = saved(pil(painted(16, 16)), "MPO", save_all=True, append_images=second)
    assert near(images.decode(data), painted(16, 16), tolerance=6)


# What is refused


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


# What a hostile file may do: nothing but be refused

SEEDS = [
    images.encode(varied(), "png", metadata={"key": "text"}),
    images.encode(varied(), "jpeg", metadata={"key": "text"}),
    images.encode(varied(), "webp", metadata={"key": "text"}),
    saved(pil(varied()).quantize(8), "PNG", transparency=3),
    saved(pil(varied()), "JPEG", progressive=True),
    saved(pil(varied()), "WEBP", lossless=True),
    saved(pil(varied()), "WEBP", save_all=True, append_images=[pil(painted(12, 20))]),
]


def with_checksums(data: bytes) -> bytes:
    """The PNG with right checksums, so that a mutation reaches what lies behind them."""
    mended, position = data[:8], 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        mended += chunk(data[position + 4 : position + 8], data[position + 8 : position + 8 + length])
        position += 12 + length
    return mended


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(start + 8, len(data))))
        data[start:end] = draw(st.binary(max_size=8))
    if data.startswith(b"\x89PNG\r\n\x1a\n") and draw(st.booleans()):
        return with_checksums(bytes(data))
    return bytes(data)


def survives(data: bytes) -> None:
    for read in (images.decode, images.read_metadata):
        with contextlib.suppress(InvalidRequestError):
            read(data)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(data=mutated_files())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_files_are_read_or_refused(data: bytes):
    survives(data)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x40\0\0\0WEBPVP8 "]),
    rest=st.binary(max_size=200),
)
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_read_or_refused(start: bytes, rest: bytes):
    survives(start + rest)


@pytest.mark.filterwarnings("error")
def test_a_warning_turned_into_an_error_is_a_refusal():
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0"  # promises five entries and ends
    assert "broken" in refusal(saved(pil(varied()), "JPEG", exif=exif))


# What is written


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


# The contact sheet


def pixel(image: RawImage, row: int, column: int) -> tuple[int, ...]:
    start = (row * image.width + column) * 3
    return tuple(image.pixels[start : start + 3])


def test_a_contact_sheet_shows_the_pictures_in_reading_order():
    sheet = images.contact_sheet([painted(10, 10, colour) for colour in (RED, GREEN, BLUE)])
    half, third = sheet.height // 2, sheet.width // 2
    assert pixel(sheet, half // 2, third // 2) == RED
    assert pixel(sheet, half // 2, third + third // 2) == GREEN
    assert pixel(sheet, half + half // 2, third // 2) == BLUE
    assert pixel(sheet, half + half // 2, third + third // 2) == WHITE


def test_columns_decide_the_form_of_the_sheet():
    wide = images.contact_sheet([painted(10, 10)] * 4, columns=4)
    tall = images.contact_sheet([painted(10, 10)] * 4, columns=1)
    assert (wide.height, wide.width) == (tall.width, tall.height)
    assert wide.width > 3 * wide.height


def test_a_sheet_holds_pictures_of_several_sizes():
    sheet = images.contact_sheet([painted(10, 40), painted(30, 10)])
    assert sheet.height >= 30
    assert sheet.width >= 80


def test_a_sheet_needs_pictures_and_columns():
    with pytest.raises(InvalidRequestError, match="at least one picture"):
        images.contact_sheet([])
    with pytest.raises(InvalidRequestError, match="columns"):
        images.contact_sheet([varied()], columns=0)


# Pillow itself


def test_importing_and_raw_pictures_load_no_pil():
    code = (
        "import sys; from router import images; from router.types import RawImage;"
        "images.to_raw_image(RawImage(1, 1, b'abc'));"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'PIL']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_pillow_names_its_cure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "PIL.WebPImagePlugin", None)
    with pytest.raises(ConfigError, match=r"pip install pillow$"):
        images.decode(SEEDS[0])
