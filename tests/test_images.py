"""Pictures in: what is read, and Pillow as a library that may be missing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from PIL import Image

from router import images
from router.errors import ConfigError
from tests.pictures import SEEDS, WHITE, near, painted, pil, saved, varied

# --- what is read


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


# --- Pillow itself


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
