"""GenerateRequest: what is accepted, and the one sentence for everything that is not."""

from __future__ import annotations

import math

import pytest
from PIL import Image

from router import images
from router.errors import InvalidRequestError
from router.request import MAX_PROMPT_CHARACTERS, MAX_SEED, GenerateRequest, LoraRequest
from router.types import RawImage

PICTURE = RawImage(16, 24, bytes(16 * 24 * 3))
OTHER_SIZE = RawImage(24, 16, bytes(16 * 24 * 3))
HUGE = 10**400


def refusal(**fields: object) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        GenerateRequest.of(**fields)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "param", "cure"),
    [
        ({"prompt": ""}, "prompt", "only a request with an `image` may leave it out"),
        ({"prompt": " \n"}, "prompt", "only a request with an `image` may leave it out"),
        ({}, "prompt", "only a request with an `image` may leave it out"),
        ({"prompt": "x" * 100_000}, "prompt", "at most 10,000 characters"),
        ({"prompt": None}, "prompt", "must be text"),
        ({"prompt": 3}, "prompt", "must be text"),
        ({"prompt": "\ud800"}, "prompt", "must be Unicode text"),
        ({"negative_prompt": "x" * 100_000}, "negative_prompt", "at most 10,000 characters"),
        ({"num_inference_steps": 0}, "num_inference_steps", "at least 1"),
        ({"num_inference_steps": -3}, "num_inference_steps", "at least 1"),
        ({"num_inference_steps": 4.0}, "num_inference_steps", "whole number"),
        ({"num_inference_steps": "4"}, "num_inference_steps", "whole number"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt", "at least 1"),
        ({"num_images_per_prompt": True}, "num_images_per_prompt", "whole number"),
        ({"guidance_scale": -1}, "guidance_scale", "at least 0"),
        ({"guidance_scale": math.nan}, "guidance_scale", "finite number"),
        ({"guidance_scale": math.inf}, "guidance_scale", "finite number"),
        ({"guidance_scale": 1000}, "guidance_scale", "at most 100"),
        ({"guidance_scale": HUGE}, "guidance_scale", "number"),
        ({"guidance_scale": True}, "guidance_scale", "number"),
        ({"true_cfg_scale": math.nan}, "true_cfg_scale", "finite number"),
        ({"seed": -1}, "seed", "at least 0"),
        ({"seed": 2**63}, "seed", f"at most {MAX_SEED}"),
        ({"seed": 1.5}, "seed", "whole number"),
        ({"seed": MAX_SEED, "num_images_per_prompt": 2}, "seed", "choose a smaller seed"),
        ({"deadline_s": 0}, "deadline_s", "above 0"),
        ({"deadline_s": math.inf}, "deadline_s", "finite number"),
        ({"reproducible": "maybe"}, "reproducible", "true or false"),
        ({"allow_adjustments": {"colour"}}, "allow_adjustments.0", "'size', 'scheduler'"),
        ({"loras": ("name",)}, "loras.0", "`name`"),
        ({"loras": ({"name": ""},)}, "loras.0.name", "not be empty"),
        ({"loras": ({"weight": 1.0},)}, "loras.0.name", "missing"),
        ({"strength": 0.5}, "strength", "give one or leave `strength` out"),
        ({"strength": -0.1, "image": PICTURE}, "strength", "at least 0"),
        ({"strength": 1.1, "image": PICTURE}, "strength", "at most 1"),
        ({"strength": math.nan, "image": PICTURE}, "strength", "finite number"),
        ({"mask_image": PICTURE}, "mask_image", "give one"),
        ({"mask_image": OTHER_SIZE, "image": PICTURE}, "mask_image", "make them the same size"),
        ({"image": "picture.png"}, "image", "read the file yourself"),
        ({"image": b"GIF89a"}, "image", "PNG, JPEG nor WebP"),
        ({"image": PICTURE, "mask_image": b""}, "mask_image", "is empty"),
    ],
)
def test_bad_input_gets_one_sentence(fields: dict[str, object], param: str, cure: str):
    exc = refusal(**{"prompt": "a circle"} | fields if fields else fields)
    assert exc.param == param
    assert exc.status == 400
    assert exc.exit_code == 3
    assert f"`{param}`" in str(exc)
    assert cure in str(exc)
    assert "\n" not in str(exc)
    assert str(exc).endswith(".")


@pytest.mark.parametrize("side", ["height", "width"])
@pytest.mark.parametrize(
    ("value", "cure"),
    [
        (0, "at least 8"),
        (-8, "at least 8"),
        (7, "at least 8"),
        (10**9, "at most 16384"),
        (10**5000, "at most 16384"),
        (math.nan, "whole number"),
        (math.inf, "whole number"),
        (512.0, "whole number"),
        ("512", "whole number"),
        (True, "whole number"),
    ],
    ids=lambda value: str(value)[:12] if not isinstance(value, int) or value < HUGE else "huge",
)
def test_bad_sizes(side: str, value: object, cure: str):
    exc = refusal(prompt="a circle", **{side: value})
    assert exc.param == side
    assert f"`{side}` is " in str(exc)
    assert cure in str(exc)


def test_an_unknown_field_is_refused_with_those_there_are():
    exc = refusal(prompt="a circle", steps=20)
    assert exc.param == "steps"
    assert "There is no field `steps`" in str(exc)
    assert "num_inference_steps" in str(exc)


def test_every_wrong_field_is_named():
    said = str(refusal(prompt="a circle", height=7, width=7, sizes="7x7"))
    for field in ("height", "width", "sizes"):
        assert f"`{field}`" in said


def test_what_was_given_is_not_repeated_at_length():
    said = str(refusal(prompt="a secret circle " * 10_000, **{"y" * 10_000: 1}))
    assert "secret" not in said
    assert len(said) < 500


def test_braces_in_a_value_are_only_text():
    assert "'{le}'" in str(refusal(prompt="a circle", height="{le}"))


def test_the_cause_is_kept_for_the_log():
    assert type(refusal(prompt=3).__cause__).__name__ == "ValidationError"


@pytest.mark.parametrize(
    ("fields", "task"),
    [
        ({"prompt": "a circle"}, "text-to-image"),
        ({"prompt": "a circle", "image": PICTURE}, "image-to-image"),
        ({"image": PICTURE}, "image-to-image"),
        ({"prompt": "a circle", "image": PICTURE, "mask_image": PICTURE}, "inpainting"),
    ],
)
def test_the_task_follows_from_the_pictures(fields: dict[str, object], task: str):
    assert GenerateRequest.of(**fields).task == task


def test_edges_are_accepted():
    request = GenerateRequest.of(
        prompt="x" * MAX_PROMPT_CHARACTERS,
        height=8,
        width=16_384,
        num_inference_steps=1,
        guidance_scale=0,
        seed=MAX_SEED,
        loras=({"name": "ink", "weight": -1},),
    )
    assert request.loras == (LoraRequest(name="ink", weight=-1.0),)
    assert request.seeds == (MAX_SEED,)
    for strength in (0, 1):
        assert GenerateRequest.of(image=PICTURE, strength=strength).strength == strength


def test_pictures_are_carried_raw_however_they_came():
    as_bytes = images.encode(PICTURE)
    as_pil = Image.frombytes("RGB", (24, 16), PICTURE.pixels)
    for given in (PICTURE, as_bytes, as_pil):
        assert GenerateRequest.of(image=given, mask_image=given).mask_image == PICTURE


def test_each_picture_has_its_own_seed():
    assert GenerateRequest.of(prompt="a circle", seed=7, num_images_per_prompt=3).seeds == (7, 8, 9)
    with pytest.raises(ValueError, match="not filled in"):
        _ = GenerateRequest.of(prompt="a circle").seeds


def test_a_request_is_frozen():
    request = GenerateRequest.of(prompt="a circle")
    with pytest.raises(ValueError, match="frozen"):
        request.prompt = "a square"


@pytest.mark.parametrize("field", ["height", "width"])
def test_a_size_that_is_not_the_pictures_is_refused_and_not_ignored(field: str) -> None:
    image = RawImage(16, 24, bytes(16 * 24 * 3))
    with pytest.raises(
        InvalidRequestError, match=f"`{field}` is 32, but the picture in `image` is 16x24"
    ) as caught:
        GenerateRequest.of(prompt="a red circle", image=image, **{field: 32})
    assert caught.value.param == field
    assert (
        GenerateRequest.of(prompt="a red circle", image=image, height=16, width=24).task == "image-to-image"
    )
