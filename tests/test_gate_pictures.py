"""Whole pictures: which are asked for, how they are compared, and the sheet that shows them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export import parity_sheet
from export.pictures import Asked, Pair, differences, psnr_db, requests_for
from export.tolerances import TOLERANCES
from router.manifest import Manifest, ParityRecord
from router.request import GenerateRequest
from router.types import RawImage
from tests.graphs import export_of, sound
from tests.pictures import painted
from tests.test_capabilities import GENERAL
from tests.test_manifest import PARITY

ABLE = dataclasses.replace(GENERAL, tasks=frozenset({"text-to-image", "image-to-image", "inpainting"}))
ASKED = Asked("text-to-image, 4 steps", "64x64", GenerateRequest.of(prompt="a circle"))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return export_of(tmp_path, sound())


def with_encoder(manifest: Manifest) -> Manifest:
    return manifest.model_copy(
        update={"components": manifest.components | {"vae_encoder": manifest.components["unet"]}}
    )


def one_pixel_off(by: int, height: int = 64, width: int = 64) -> Pair:
    """The export's last pixel is `by` levels darker in blue."""
    source = painted(height, width, (200, 200, 200))
    pixels = bytearray(source.pixels)
    pixels[-1] -= by
    return Pair(ASKED, source, RawImage(height, width, bytes(pixels)))


def test_equal_pictures_have_no_ratio() -> None:
    parity = one_pixel_off(0).parity()
    assert (parity.psnr_db, parity.largest_difference) == (None, 0)


def test_the_ratio_is_that_of_the_mean_square() -> None:
    """One level everywhere: 20 log10(255) = 48.13 dB."""
    levels = differences(painted(8, 8, (10, 10, 10)), painted(8, 8, (11, 9, 11)))
    assert psnr_db(levels) == pytest.approx(48.1308, abs=1e-4)
    parity = one_pixel_off(40).parity()
    assert parity.largest_difference == 40
    assert parity.psnr_db == pytest.approx(10 * np.log10(255**2 * 64 * 64 * 3 / 40**2))


def test_differences_do_not_wrap_around() -> None:
    assert differences(painted(1, 1, (0, 255, 3)), painted(1, 1, (255, 0, 3))).ravel().tolist() == [
        255,
        255,
        0,
    ]


def test_four_pictures_of_unlike_tasks_steps_and_guidance(manifest: Manifest) -> None:
    asked = requests_for(ABLE, with_encoder(manifest))
    requests = [each.request for each in asked]
    assert [each.task for each in requests] == [
        "text-to-image",
        "text-to-image",
        "image-to-image",
        "inpainting",
    ]
    assert len({each.num_inference_steps for each in requests}) > 2
    assert len({each.guidance_scale for each in requests}) == 2
    assert len({each.seed for each in requests}) == len({each.prompt for each in requests}) == 4
    assert len({each.name for each in asked}) == 4


def test_without_an_encoder_four_pictures_are_made_from_text(manifest: Manifest) -> None:
    asked = requests_for(ABLE, manifest)
    assert [each.request.task for each in asked] == ["text-to-image"] * 4
    assert len({each.name for each in asked}) == 4


def test_a_model_that_only_inpaints_is_asked_for_nothing_else(manifest: Manifest) -> None:
    inpainting = dataclasses.replace(ABLE, tasks=frozenset({"inpainting"}))
    asked = requests_for(inpainting, with_encoder(manifest))
    assert [each.request.task for each in asked] == ["inpainting"] * 4
    assert len({each.name for each in asked}) == 4


def test_every_further_profile_gets_a_picture_of_its_size(manifest: Manifest) -> None:
    (profile,) = manifest.profiles
    other = profile.model_copy(update={"name": "96x64", "height": 64, "width": 96})
    asked = requests_for(ABLE, manifest.model_copy(update={"profiles": (profile, other)}))
    assert len(asked) == 5
    assert (asked[-1].profile, asked[-1].request.height, asked[-1].request.width) == ("96x64", 64, 96)


def test_a_model_without_guidance_is_not_asked_for_any(manifest: Manifest) -> None:
    plain = dataclasses.replace(ABLE, defaults=dataclasses.replace(ABLE.defaults, guidance_scale=None))
    assert {each.request.guidance_scale for each in requests_for(plain, manifest)} == {None}


def record_of(*pairs: Pair) -> ParityRecord:
    return PARITY.model_copy(update={"pictures": tuple(pair.parity() for pair in pairs)})


def test_the_sheet_shows_each_difference_as_bright_as_the_largest_allows(manifest: Manifest) -> None:
    pairs = [one_pixel_off(2), one_pixel_off(50)]
    sheet = parity_sheet.draw(pairs, manifest, record_of(*pairs))
    bright = [blue for blue in np.asarray(sheet)[:, :, 2].ravel() if blue == 250]
    assert bright, "50 levels, 5 times"
    equal = one_pixel_off(0)
    dark = parity_sheet.draw([equal], manifest, record_of(equal))
    assert dark.height < sheet.height
    assert dark.width == sheet.width


@pytest.mark.parametrize(("height", "width"), [(64, 64), (1024, 1024), (1216, 832), (100, 1000)])
def test_a_lone_pixel_is_seen_at_any_size(manifest: Manifest, height: int, width: int) -> None:
    pair = one_pixel_off(1, height, width)
    with_it = np.asarray(parity_sheet.draw([pair], manifest, record_of(pair))).astype(int)
    assert (with_it[:, :, 2] - with_it[:, :, 1] == 128).any(), "1 level, 128 times, in blue"
    assert max(with_it.shape) < 1700


def test_the_sheet_is_a_picture_file(manifest: Manifest, tmp_path: Path) -> None:
    pair = one_pixel_off(3)
    parity_sheet.write(tmp_path / "parity.png", [pair], manifest, record_of(pair))
    with Image.open(tmp_path / "parity.png") as sheet:
        assert sheet.format == "PNG"


def test_a_narrower_dtype_is_allowed_more() -> None:
    wide, half, brain = (TOLERANCES[name] for name in ("float32", "float16", "bfloat16"))
    assert (wide.component_error, wide.psnr_db) == (1e-4, 60)
    assert wide.component_error < half.component_error < brain.component_error
    assert wide.psnr_db > half.psnr_db > brain.psnr_db
