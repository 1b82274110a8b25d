"""Sizes by name and aspect ratio: the arithmetic, what fixed shapes make of them, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.capabilities import Capabilities, Defaults
from router.config import InstanceConfig, Limits, ModelConfig, ModelDefaults
from router.errors import InvalidRequestError, NoRouteError
from router.request import GenerateRequest
from router.routing import ModelView, Route, choose_route
from router.sizes import RATIOS, SHARES, Size, SizeName, SizeRange, choose_size, ratio_of
from router.types import RawImage, ShapeProfile
from tests.doubles import capabilities

SDXL = SizeRange(Size(1024, 1024), 8)


def fixed(*sizes: tuple[int, int], native: int = 512) -> SizeRange:
    return SizeRange(Size(native, native), 8, tuple(Size(*size) for size in sizes))


def able(native: int = 64, sizes: tuple[tuple[int, int], ...] = (), **changes: Any) -> Capabilities:
    profiles = tuple(ShapeProfile(f"{h}x{w}", h, w, "float32", (1,)) for h, w in sizes)
    return capabilities(defaults=Defaults(native, native, 4), profiles=profiles, min_side=16, **changes)


def route(*instances: Capabilities, limits: Limits | None = None, size: str = "", **fields: Any) -> Route:
    named = {f"i{index}": each for index, each in enumerate(instances)}
    configs = tuple(InstanceConfig(name=name, backend="double") for name in named)
    config = ModelConfig(name="m", instances=configs, defaults=ModelDefaults(size=size or None))
    request = GenerateRequest.of(prompt="a", **fields)
    return choose_route(request, ModelView.of(config, named), limits or Limits(), seed=7)


def sides(found: Route) -> tuple[int | None, int | None]:
    return found.request.height, found.request.width


def refusal(**fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        GenerateRequest.of(prompt="a", **fields)
    return caught.value


# --- the arithmetic


@pytest.mark.parametrize(("name", "expected"), [("s", (512, 512)), ("m", (768, 768)), ("l", (1024, 1024))])
def test_names_are_shares_of_the_native_size(name: SizeName, expected: tuple[int, int]) -> None:
    assert SDXL.named(name) == expected


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [("16:9", (768, 1344)), ("9:16", (1344, 768)), ("4:3", (896, 1216)), ("21:9", (640, 1536))],
)
def test_ratios_of_a_model_of_1024_are_the_sizes_that_sdxl_was_trained_in(
    ratio: str, expected: tuple[int, int]
) -> None:
    assert SDXL.named("l", ratio_of(ratio)) == expected


def test_a_native_size_that_is_no_square_keeps_its_shape() -> None:
    wide = SizeRange(Size(480, 832), 16)
    assert wide.named("l") == (480, 832)
    assert wide.named("s") == (240, 416)


@given(
    st.sampled_from([64, 128, 512, 768, 1024]),
    st.sampled_from([8, 16]),
    st.sampled_from(list(SHARES)),
    st.sampled_from([*RATIOS, "3:2", "2:3", "21:9", "5:4"]),
)
def test_sizes_keep_to_the_multiple_the_shape_and_the_area(
    native: int, multiple: int, name: SizeName, ratio: str
) -> None:
    size = SizeRange(Size(native, native), multiple).named(name, ratio_of(ratio))
    assert size is not None
    assert size.height % multiple == size.width % multiple == 0
    coarse = native * SHARES[name] / multiple < 8  # sides of so few steps cannot come nearer
    assert abs(math.log(size.width / size.height / ratio_of(ratio))) < (0.5 if coarse else 0.12)
    assert abs(math.log(math.prod(size) / (native * SHARES[name]) ** 2)) < (0.7 if coarse else 0.2)


# --- fixed shapes


def test_names_stand_for_the_fixed_sizes_that_are_there() -> None:
    sizes = fixed((256, 256), (512, 512), (512, 896), (896, 512))
    asked: list[tuple[SizeName, str]] = [("s", "1:1"), ("l", "1:1"), ("l", "16:9"), ("l", "9:16")]
    found = [choose_size([sizes], name, ratio_of(ratio)) for name, ratio in asked]
    assert found == [(256, 256), (512, 512), (512, 896), (896, 512)]


def test_a_fixed_size_that_is_like_it_goes_before_the_one_of_an_instance_that_makes_any() -> None:
    assert choose_size([fixed((512, 912)), SizeRange(Size(512, 512), 8)], "l", 16 / 9) == (384, 672)
    assert choose_size([fixed((384, 688)), SizeRange(Size(512, 512), 8)], "l", 16 / 9) == (384, 688)


def test_a_fixed_size_is_of_one_name_alone() -> None:
    sizes = fixed((448, 448))
    assert [choose_size([sizes], name) for name in SHARES] == [(256, 256), (384, 384), (448, 448)]


def test_what_no_graph_was_made_for_is_refused_with_the_sizes_that_are_there() -> None:
    found = route(able(sizes=((64, 64), (64, 112))), aspect_ratio="3:4")
    assert found.candidates == ()
    assert "its graphs are made for 64x64, 64x112 (height x width), not" in str(found.refusal())
    assert isinstance(found.refusal(), NoRouteError)


def test_with_leave_it_is_the_nearest_of_them_and_the_route_says_so() -> None:
    found = route(able(sizes=((64, 64),)), aspect_ratio="16:9", allow_adjustments=["size"])
    assert sides(found) == (64, 64)
    assert "from 48x88 to 64x64" in found.adjustments[0]


# --- requests


def test_the_effective_request_has_the_sides_alone() -> None:
    found = route(able(), aspect_ratio="16:9").request
    assert (found.height, found.width, found.size, found.aspect_ratio) == (48, 88, None, None)


def test_a_size_in_pixels_is_height_and_width() -> None:
    read = GenerateRequest.of(prompt="a", size=" 96X64 ")
    assert (read.height, read.width, read.size) == (64, 96, None)
    assert GenerateRequest.of(prompt="a", size="M").size == "m"
    assert GenerateRequest.of(prompt="a", size=None, height=64).height == 64


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"size": "xl"}, "size", "`size` is 'xl'; write s, m, l, or WIDTHxHEIGHT"),
        ({"size": "64"}, "size", "write s, m, l"),
        ({"size": 64}, "size", "must be text"),
        ({"size": "m", "height": 64}, "size", "not both"),
        ({"size": "64x64", "width": 64}, "size", "not both"),
        ({"size": "7x64"}, "width", "must be at least 8"),
        ({"aspect_ratio": "16/9"}, "aspect_ratio", "WIDTH:HEIGHT"),
        ({"aspect_ratio": "16:0"}, "aspect_ratio", "WIDTH:HEIGHT"),
        ({"aspect_ratio": "1:1", "width": 64}, "aspect_ratio", "leave it out"),
        ({"aspect_ratio": "1:1", "size": "64x64"}, "aspect_ratio", "leave it out"),
    ],
)
def test_what_cannot_be_read_or_stands_beside_other_sides_is_refused(
    fields: dict[str, Any], param: str, said: str
) -> None:
    error = refusal(**fields)
    assert error.param == param
    assert said in str(error)


@pytest.mark.parametrize("field", [{"size": "m"}, {"aspect_ratio": "1:1"}])
def test_a_picture_keeps_its_own_size(field: dict[str, Any]) -> None:
    error = refusal(image=RawImage(64, 64, bytes(64 * 64 * 3)), **field)
    assert error.param in field
    assert "keeps its own size" in str(error)


def test_names_do_not_bend_to_limits_and_shapes_not_to_sides() -> None:
    with pytest.raises(InvalidRequestError, match="`height` may be at most 32, not 64"):
        route(able(), limits=Limits(max_height=32), aspect_ratio="1:1")
    assert "must be 16 to 4096 pixels" in str(route(able(), aspect_ratio="90:1").refusal())


# --- defaults


def test_a_configured_size_is_what_is_left_out() -> None:
    assert sides(route(able(), size="m")) == (48, 48)
    assert sides(route(able(), size="96x64")) == (64, 96)
    assert sides(route(able(), size="m", height=64)) == (64, 48)


def test_an_image_keeps_its_size_beside_a_configured_one() -> None:
    found = route(able(), size="m", image=RawImage(32, 32, bytes(32 * 32 * 3)))
    assert sides(found) == (32, 32)
