"""How near a picture stays to the one it starts from: strength, reference strength, exact copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from router.capabilities import Defaults
from router.config import InstanceConfig, Limits, ModelConfig, RouterConfig
from router.errors import InvalidRequestError, NoRouteError
from router.models import SHIPPED_DEFAULTS
from router.request import GenerateRequest
from router.router import BackendRouter
from router.routing import ModelView, choose_route
from tests.doubles import capabilities
from tests.pictures import painted
from tests.plain_pipelines import pixels
from tests.services import fake_config

PICTURE = painted(64, 64)
DEFAULTS = Defaults(64, 64, 8, guidance_scale=5.0, strength=0.6)
Ask = Callable[..., GenerateRequest]


def effective(defaults: Defaults = DEFAULTS, **fields: Any) -> GenerateRequest:
    """The request that an instance with these defaults gets. Raises as routing does."""
    config = ModelConfig(name="m", instances=(InstanceConfig(name="a", backend="double"),))
    view = ModelView.of(config, {"a": capabilities(defaults=defaults)})
    route = choose_route(GenerateRequest.of(prompt="a", image=PICTURE, **fields), view, Limits(), seed=1)
    if not route.candidates:
        raise route.refusal()
    return route.request


# --- reference strength


@pytest.mark.parametrize(("reference", "strength"), [(0.3, 0.7), (0.9, 0.1), (0.0, 1.0), (0.125, 0.875)])
def test_reference_strength_is_strength_seen_from_the_picture(reference: float, strength: float) -> None:
    asked = effective(reference_strength=reference, num_inference_steps=20)
    assert (asked.strength, asked.reference_strength) == (strength, None)
    assert asked.reference_mode == "modify"


def test_without_either_the_models_default_counts() -> None:
    assert effective().strength == 0.6


async def test_both_words_make_one_picture() -> None:
    async with BackendRouter(fake_config()) as router:
        ask = {"prompt": "a", "image": PICTURE, "seed": 1}
        one = await router.generate(**ask, strength=0.7)
        other = await router.generate(**ask, reference_strength=0.3)
        neither = await router.generate(**ask)
    assert one.images == other.images != neither.images
    assert one.request == other.request


# --- exact copy


def test_an_exact_copy_is_one_step_without_guidance_or_negative_prompt() -> None:
    asked = effective(exact_copy=True, negative_prompt="")
    assert (asked.strength, asked.guidance_scale, asked.negative_prompt) == (0.05, 1.0, None)
    assert asked.num_inference_steps == 20
    assert asked.reference_mode == "copy"


def test_a_copy_may_be_nearer_still() -> None:
    assert effective(exact_copy=True, strength=0.02).num_inference_steps == 50
    assert effective(exact_copy=True, reference_strength=0.98).strength == 0.02


def test_steps_that_the_request_names_are_not_raised() -> None:
    with pytest.raises(NoRouteError, match=r"leaves none of the 8 `num_inference_steps`"):
        effective(exact_copy=True, num_inference_steps=8)


def test_a_model_without_guidance_copies_without_it() -> None:
    unguided = dataclasses.replace(DEFAULTS, guidance_scale=None)
    assert effective(unguided, exact_copy=True).guidance_scale is None


def test_the_effective_request_of_a_copy_can_be_sent_again() -> None:
    asked = effective(exact_copy=True)
    fields = asked.model_dump(exclude={"image"}, exclude_none=True)
    assert GenerateRequest.of(**fields, image=PICTURE) == asked


async def test_an_exact_copy_is_nearly_the_picture() -> None:
    """On the shipped model: what its own coding loses, and no more."""
    instance = InstanceConfig(name="shapes", backend="diffusers", source="shipped:shapes", device="cpu")
    model = ModelConfig(name="shapes", instances=(instance,), defaults=SHIPPED_DEFAULTS)
    async with BackendRouter(RouterConfig(models=(model,), default_model="shapes")) as router:
        original = await router.generate(prompt="a red circle on a white background", seed=1)
        ask = {"prompt": "a blue star on a black background", "image": original.images[0], "seed": 2}
        copied = await router.generate(**ask, exact_copy=True)
        modified = await router.generate(**ask, strength=1.0)
    assert (original.reference_mode, copied.reference_mode, modified.reference_mode) == (
        "none",
        "copy",
        "modify",
    )
    wanted = pixels(original.images[0]).astype(int)
    off = [float(np.abs(pixels(each.images[0]) - wanted).mean()) for each in (copied, modified)]
    assert off[0] < 8 < 40 < off[1]


# --- contradictions


@pytest.mark.parametrize(
    ("fields", "param", "other"),
    [
        ({"strength": 0.5, "reference_strength": 0.5}, "reference_strength", "`strength`"),
        ({"exact_copy": True, "strength": 0.4}, "strength", "`exact_copy`"),
        ({"exact_copy": True, "reference_strength": 0.5}, "reference_strength", "`exact_copy`"),
        ({"exact_copy": True, "guidance_scale": 7.5}, "guidance_scale", "`exact_copy`"),
        ({"exact_copy": True, "true_cfg_scale": 4.0}, "true_cfg_scale", "`exact_copy`"),
        ({"exact_copy": True, "negative_prompt": "a square"}, "negative_prompt", "`exact_copy`"),
        ({"exact_copy": True, "mask_image": PICTURE}, "mask_image", "`exact_copy`"),
        ({"exact_copy": True, "scale": 2}, "scale", "`exact_copy`"),
        ({"exact_copy": True, "enhance": True}, "enhance", "`exact_copy`"),
    ],
)
def test_contradictions_are_refused_by_both_names(fields: dict[str, Any], param: str, other: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        GenerateRequest.of(prompt="a", image=PICTURE, **fields)
    assert caught.value.param == param
    assert f"`{param}`" in str(caught.value)
    assert other in str(caught.value)


@pytest.mark.parametrize("fields", [{"reference_strength": 0.5}, {"exact_copy": True}, {"scale": 2}])
def test_without_a_picture_there_is_nothing_to_refer_to(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="`image`") as caught:
        GenerateRequest.of(prompt="a", **fields)
    assert caught.value.param == next(iter(fields))


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True])
def test_reference_strength_goes_from_0_to_1(value: float) -> None:
    with pytest.raises(InvalidRequestError, match="`reference_strength`"):
        GenerateRequest.of(prompt="a", image=PICTURE, reference_strength=value)
