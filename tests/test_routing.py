from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.capabilities import Capabilities, Defaults
from router.config import InstanceConfig, Limits, ModelConfig, ModelDefaults
from router.errors import BackendUnavailableError, InvalidRequestError, NoRouteError
from router.request import GenerateRequest
from router.routing import ModelView, Route, choose_route, nearest_size
from router.types import RawImage, ShapeProfile
from tests.doubles import capabilities

PROFILE = ShapeProfile("64x64", 64, 64, "float32", (1,))


def view(defaults: ModelDefaults | None = None, **instances: Capabilities | None) -> ModelView:
    configs = tuple(InstanceConfig(name=name, backend="double") for name in instances)
    config = ModelConfig(name="m", instances=configs, defaults=defaults or ModelDefaults())
    known = {name: capabilities for name, capabilities in instances.items() if capabilities is not None}
    return ModelView.of(config, known)


def able(**changes: Any) -> Capabilities:
    return capabilities(**{"defaults": Defaults(64, 64, 20, guidance_scale=5.0, strength=0.6)} | changes)


def ask(prompt: str = "a", **fields: Any) -> GenerateRequest:
    return GenerateRequest.of(prompt=prompt, **fields)


def image(height: int, width: int) -> RawImage:
    return RawImage(height, width, bytes(height * width * 3))


def route(request: GenerateRequest, model: ModelView, limits: Limits | None = None, **more: Any) -> Route:
    return choose_route(request, model, limits or Limits(), **{"seed": 7} | more)


# --- defaults


def test_gaps_are_filled_from_the_first_instance_known() -> None:
    other = able(defaults=Defaults(32, 32, 8))
    filled = route(ask(), view(a=None, b=able(), c=other)).request
    assert (filled.height, filled.width, filled.num_inference_steps) == (64, 64, 20)
    assert filled.guidance_scale == 5.0
    assert filled.seed == 7
    assert filled.model == "m"


def test_the_config_goes_before_the_model_and_the_request_before_both() -> None:
    model = view(ModelDefaults(height=32, num_inference_steps=8, guidance_scale=0.0), a=able())
    filled = route(ask(num_inference_steps=3, seed=1), model).request
    assert (filled.height, filled.width, filled.num_inference_steps) == (32, 64, 3)
    assert filled.guidance_scale == 0.0
    assert filled.seed == 1


def test_a_model_without_guidance_gets_none() -> None:
    model = view(a=able(defaults=Defaults(64, 64, 4)))
    assert route(ask(), model).request.guidance_scale is None


def test_the_size_of_an_image_is_the_size_of_the_picture() -> None:
    filled = route(ask(image=image(32, 48)), view(a=able())).request
    assert (filled.height, filled.width) == (32, 48)
    assert filled.strength == 0.6


def test_strength_is_for_requests_with_an_image() -> None:
    assert route(ask(), view(a=able())).request.strength is None


def test_a_default_negative_prompt_is_filled_in_where_it_has_an_effect() -> None:
    model = view(ModelDefaults(negative_prompt="blurry"), a=able())
    assert route(ask(), model).request.negative_prompt == "blurry"
    assert route(ask(negative_prompt="dark"), model).request.negative_prompt == "dark"
    unguided = route(ask(guidance_scale=1.0), model)
    assert unguided.request.negative_prompt is None
    assert unguided.candidates == ("a",)


def test_nothing_that_the_request_says_is_changed() -> None:
    asked = ask(height=32, width=48, num_inference_steps=2, guidance_scale=2.5, seed=3, scheduler="DDIM")
    filled = route(asked, view(a=able())).request
    for field in asked.model_fields_set:
        assert getattr(filled, field) == getattr(asked, field)


# --- limits


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("height", 1024),
        ("width", 1024),
        ("num_inference_steps", 51),
        ("guidance_scale", 10.5),
        ("true_cfg_scale", 11.0),
        ("num_images_per_prompt", 5),
    ],
)
def test_more_than_the_config_allows_is_refused_with_field_and_limit(field: str, value: float) -> None:
    limits = Limits(max_height=512, max_width=512, max_steps=50, max_guidance=10, max_images=4)
    with pytest.raises(InvalidRequestError, match=f"`{field}` may be at most .*, not {value}") as caught:
        route(ask(**{field: value}), view(a=able()), limits)
    assert caught.value.param == field


# --- candidates


def test_candidates_stand_in_config_order() -> None:
    assert route(ask(), view(b=able(), a=able(), c=able())).candidates == ("b", "a", "c")


def test_a_fixed_shape_that_holds_the_size_goes_first() -> None:
    model = view(a=able(), b=able(profiles=(PROFILE,)))
    assert route(ask(), model).candidates == ("b", "a")
    assert route(ask(height=32), model).candidates == ("a",)


def test_each_instance_passed_over_has_its_sentence() -> None:
    model = view(a=able(tasks=frozenset({"inpainting"})), b=able(), c=None)
    chosen = route(ask(), model, unavailable={"c": "It needs torch."})
    assert chosen.candidates == ("b",)
    assert chosen.rejections == {"a": "it does inpainting, not text-to-image.", "c": "It needs torch."}


def test_by_predicted_completion_the_quickest_goes_first() -> None:
    seconds = {"a": 9.0, "b": 1.0, "c": 5.0}
    chosen = route(ask(), view(a=able(), b=able(), c=able()), predict=lambda name, _: seconds[name])
    assert chosen.candidates == ("b", "c", "a")


def test_a_fixed_shape_goes_first_however_long_it_takes() -> None:
    seconds = {"a": 1.0, "b": 9.0}
    model = view(a=able(), b=able(profiles=(PROFILE,)))
    assert route(ask(), model, predict=lambda name, _: seconds[name]).candidates == ("b", "a")


# --- refusals


def test_without_a_candidate_the_refusal_holds_every_sentence() -> None:
    refused = route(ask(height=65, width=64), view(a=able(), b=able(profiles=(PROFILE,))))
    assert refused.candidates == ()
    error = refused.refusal()
    assert isinstance(error, NoRouteError)
    assert set(error.rejections) == {"a", "b"}
    assert "`height`" in str(error)


def test_an_instance_that_would_serve_but_is_away_makes_the_refusal_temporary() -> None:
    model = view(a=able(), b=able(profiles=(PROFILE,)))
    refused = route(ask(height=32), model, unavailable={"a": "It broke."})
    error = refused.refusal()
    assert isinstance(error, BackendUnavailableError)
    assert "It broke." in str(error)


def test_an_unknown_instance_does_not_make_a_wrong_request_temporary() -> None:
    refused = route(ask(height=65), view(a=able(), b=None), unavailable={"b": "It needs torch."})
    assert isinstance(refused.refusal(), NoRouteError)


def test_when_nobody_is_there_the_refusal_is_temporary() -> None:
    refused = route(ask(), view(a=None), unavailable={"a": "It needs torch."})
    assert isinstance(refused.refusal(), BackendUnavailableError)
    assert refused.request.height is None, "nobody has said what the default is"


# --- adjustments


def test_a_size_is_changed_only_with_leave() -> None:
    model = view(a=able())
    assert route(ask(height=100, width=60), model).candidates == ()
    adjusted = route(ask(height=100, width=60, allow_adjustments={"size"}), model)
    assert (adjusted.request.height, adjusted.request.width) == (96, 64)
    assert adjusted.candidates == ("a",)
    assert adjusted.adjustments == (
        "The size was changed from 100x60 to 96x64 (height x width), the nearest that can be served.",
    )


def test_a_size_that_is_served_is_not_changed() -> None:
    chosen = route(ask(height=32, width=64, allow_adjustments={"size"}), view(a=able()))
    assert (chosen.request.height, chosen.request.width) == (32, 64)
    assert chosen.adjustments == ()


def test_a_size_beyond_the_limits_is_changed_with_leave() -> None:
    limits = Limits(max_height=64, max_width=64)
    chosen = route(ask(height=256, width=128, allow_adjustments={"size"}), view(a=able()), limits)
    assert (chosen.request.height, chosen.request.width) == (64, 32)


def test_the_nearest_profile_has_the_nearest_aspect_ratio() -> None:
    wide = ShapeProfile("wide", 32, 64, "float32", (1,))
    large = ShapeProfile("large", 128, 128, "float32", (1,))
    model = view(a=able(profiles=(PROFILE, wide, large)))
    adjusted = route(ask(height=48, width=88, allow_adjustments={"size"}), model)
    assert (adjusted.request.height, adjusted.request.width) == (32, 64)
    adjusted = route(ask(height=112, width=112, allow_adjustments={"size"}), model)
    assert (adjusted.request.height, adjusted.request.width) == (128, 128)


def test_the_size_of_an_image_is_not_changed() -> None:
    refused = route(ask(image=image(33, 48), allow_adjustments={"size"}), view(a=able()))
    assert refused.candidates == ()
    assert refused.request.height == 33


def test_leave_to_change_the_size_does_not_excuse_another_fault() -> None:
    refused = route(ask(scheduler="None", height=100, allow_adjustments={"size"}), view(a=able()))
    assert refused.candidates == ()
    assert refused.adjustments == ()


def test_an_instance_that_is_away_is_no_reason_to_change_the_size_to_its_own() -> None:
    model = view(a=able(profiles=(PROFILE,)), b=able(size_multiple=32))
    request = ask(height=40, width=40, allow_adjustments={"size"})
    adjusted = route(request, model, unavailable={"a": "It broke."})
    assert (adjusted.request.height, adjusted.candidates) == (32, ("b",))


@given(
    height=st.integers(8, 16_384),
    width=st.integers(8, 16_384),
    multiple=st.sampled_from([8, 16, 64]),
    most=st.integers(64, 4096),
)
def test_the_nearest_size_is_always_one_that_is_served(
    height: int, width: int, multiple: int, most: int
) -> None:
    limits = Limits(max_height=most, max_width=2048)
    instance = able(size_multiple=multiple, min_side=24)
    changed = ask(
        **dict(zip(("height", "width"), nearest_size(instance, limits, height, width), strict=True))
    )
    chosen = route(changed, view(a=instance), limits)
    assert chosen.candidates == ("a",)
