"""Capabilities.why_not: the first reason why an instance cannot serve exactly this request."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.capabilities import Capabilities, Defaults
from router.footprint import Footprint
from router.lora import LoraAbility, LoraFacts
from router.request import GenerateRequest
from router.schedulers import class_name
from router.types import RawImage, ShapeProfile

GENERAL = Capabilities(
    family="sd",
    pipeline="StableDiffusionPipeline",
    tasks=frozenset({"text-to-image"}),
    defaults=Defaults(height=512, width=512, num_inference_steps=20, guidance_scale=7.5),
    footprint=Footprint(weights_bytes=1000, row_bytes_per_pixel=10, decode_bytes_per_pixel=5),
    device="cpu",
    dtype="float32",
    size_multiple=64,
    min_side=64,
    max_side=1024,
    schedulers=("DDIM", "EulerDiscrete"),
    loras=LoraAbility((LoraFacts("ink"),)),
)
PROFILE = ShapeProfile(name="512x768-fp16", height=512, width=768, dtype="float16", row_buckets=(2, 8))
PICTURE = RawImage(512, 512, bytes(512 * 512 * 3))


def effective(**fields: object) -> GenerateRequest:
    filled = {"prompt": "a circle", "height": 512, "width": 512, "num_inference_steps": 20, "seed": 0}
    return GenerateRequest.of(**filled | fields)


def test_what_it_can_do_has_no_reason_against_it():
    request = effective(
        guidance_scale=7.5,
        negative_prompt="a square",
        scheduler="EulerDiscreteScheduler",
        loras=({"name": "ink"},),
        reproducible=True,
        previews=True,
    )
    assert GENERAL.why_not(request) is None


@pytest.mark.parametrize(
    ("changes", "fields", "reason"),
    [
        ({}, {"image": PICTURE}, "it does text-to-image, not image-to-image."),
        ({}, {"height": 32}, "`height` must be 64 to 1024 pixels, not 32."),
        ({}, {"width": 2048}, "`width` must be 64 to 1024 pixels, not 2048."),
        ({}, {"height": 500}, "`height` must be a multiple of 64, not 500; try 448 or 512."),
        ({"max_side": 600}, {"width": 599}, "`width` must be a multiple of 64, not 599; try 576."),
        ({"min_side": 8}, {"width": 16}, "`width` must be a multiple of 64, not 16; try 64."),
        ({}, {"scheduler": "LCM"}, "it has no scheduler 'LCM'; it has DDIM, EulerDiscrete."),
        ({"schedulers": ()}, {"scheduler": "LCM"}, "it has no scheduler 'LCM'; it has none."),
        ({}, {"loras": ({"name": "oil"},)}, "it has no LoRA 'oil'; it has ink."),
        (
            {"tasks": frozenset({"image-to-image"})},
            {"image": PICTURE, "strength": 0.04},
            "`strength` 0.04 leaves none of the 20 `num_inference_steps` to do; it must be at least 0.05.",
        ),
        (
            {"true_cfg": True},
            {"true_cfg_scale": 2},
            "`true_cfg_scale` has no effect without a `negative_prompt`; give one or leave it out.",
        ),
        (
            {},
            {"true_cfg_scale": 2},
            "`true_cfg_scale` is not a parameter of this model; use `guidance_scale`.",
        ),
        (
            {"defaults": Defaults(height=512, width=512, num_inference_steps=4)},
            {"guidance_scale": 7.5},
            "`guidance_scale` has no effect on this model; leave it out.",
        ),
        (
            {"negative_prompt": False},
            {"negative_prompt": "a square", "guidance_scale": 7.5},
            "`negative_prompt` is not a parameter of this model.",
        ),
        (
            {},
            {"negative_prompt": "a square", "guidance_scale": 1},
            "`negative_prompt` has no effect unless `guidance_scale` is above 1.",
        ),
        (
            {"true_cfg": True},
            {"negative_prompt": "a square", "guidance_scale": 3.5},
            "`negative_prompt` has no effect unless `true_cfg_scale` is above 1.",
        ),
        ({"reproducible": False}, {"reproducible": True}, "it cannot promise `reproducible` pictures."),
        ({"previews": False}, {"previews": True}, "it has no `previews`."),
    ],
)
def test_each_thing_it_cannot_do_is_a_reason(
    changes: dict[str, object], fields: dict[str, object], reason: str
):
    assert replace(GENERAL, **changes).why_not(effective(**fields)) == reason


def test_fixed_shapes_serve_their_sizes_only():
    fixed = replace(GENERAL, profiles=(PROFILE,))
    assert fixed.fixed_shape
    assert not GENERAL.fixed_shape
    assert fixed.why_not(effective(height=512, width=768)) is None
    assert fixed.why_not(effective(height=768, width=512)) == (
        "its graphs are made for 512x768 (height x width), not 768x512."
    )


def test_memory_that_can_never_fit_names_a_size_that_does():
    needed = 1000 + 512 * 512 * 10
    assert replace(GENERAL, device_memory_bytes=needed).why_not(effective()) is None
    reason = replace(GENERAL, device_memory_bytes=needed - 1).why_not(effective())
    assert reason == (
        f"512x512 needs {needed:,} bytes on cpu, which has {needed - 1:,} (weights 1 kB, denoising 2.62 MB by"
        " formula, decoding 1.31 MB by formula); 448x448 fits."
    )


def test_the_size_that_fits_really_fits():
    small = replace(GENERAL, device_memory_bytes=1_000_000)
    reason = small.why_not(effective(height=512, width=1024))
    assert reason is not None
    height, width = map(int, reason.split("; ")[1].removesuffix(" fits.").split("x"))
    assert small.why_not(effective(height=height, width=width)) is None


def test_weights_alone_may_be_too_much():
    reason = replace(GENERAL, device_memory_bytes=999).why_not(effective())
    assert reason is not None
    assert reason.endswith("no size fits.")


def test_guidance_doubles_the_rows():
    assert GENERAL.rows_of(effective()) == 1
    assert GENERAL.rows_of(effective(guidance_scale=1.0)) == 1
    assert GENERAL.rows_of(effective(guidance_scale=1.1)) == 2


def test_distilled_guidance_is_an_input_and_no_row():
    flux = replace(GENERAL, true_cfg=True)
    assert flux.rows_of(effective(guidance_scale=3.5, true_cfg_scale=4.0)) == 1


def test_a_request_without_a_size_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="not filled in"):
        GENERAL.why_not(GenerateRequest.of(prompt="a circle"))


def test_a_scheduler_has_one_name():
    assert class_name("DDIMScheduler") == class_name("DDIM") == "DDIM"
