"""One request through the router: what comes back, and what is refused before anything runs."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from router.errors import (
    GenerateError,
    InvalidRequestError,
    ModelNotFoundError,
    NoRouteError,
)
from router.footprint import Footprint
from router.request import GenerateRequest
from router.types import Generated, Picture, RawImage
from tests.doubles import (
    BROKE,
    SIDE,
    Double,
    router_of,
)


async def test_a_request_comes_back_with_everything_needed_to_make_it_again() -> None:
    a = Double()
    async with router_of(a) as router:
        result = await router.generate(prompt="a circle", num_images_per_prompt=2, seed=5)
    assert len(result.images) == 2
    assert result.seeds == (5, 6)
    assert (result.instance, result.backend) == ("a", "double")
    assert result.request == a.seen[0]
    assert (result.request.height, result.request.num_inference_steps) == (SIDE, 4)
    assert [(attempt.instance, attempt.error) for attempt in result.attempts] == [("a", "")]
    assert result.notes == result.adjustments == ()


async def test_a_whole_request_is_taken_as_well_but_not_beside_fields() -> None:
    request = GenerateRequest.of(prompt="a circle", seed=1)
    async with router_of(Double()) as router:
        assert (await router.generate(request)).request.seed == 1
        with pytest.raises(InvalidRequestError, match="not both"):
            await router.generate(request, seed=2)


async def test_without_a_seed_every_request_gets_another() -> None:
    async with router_of(Double()) as router:
        seeds = {(await router.generate(prompt="a")).request.seed for _ in range(5)}
    assert len(seeds) == 5


async def test_encoded_pictures_are_decoded() -> None:
    buffer = BytesIO()
    Image.new("RGB", (SIDE, SIDE), "red").save(buffer, "png")
    a = Double()
    async with router_of(a) as router:
        await router.generate(image=buffer.getvalue(), mask_image=Image.new("L", (SIDE, SIDE)))
        with pytest.raises(InvalidRequestError) as caught:
            await router.generate(prompt="a", image=b"no picture")
    assert a.seen[0].image == RawImage(SIDE, SIDE, b"\xff\x00\x00" * SIDE * SIDE)
    assert a.seen[0].task == "inpainting"
    assert caught.value.param == "image"


async def test_some_pictures_that_fail_do_not_fail_the_others() -> None:
    class Half(Double):
        async def generate(self, request: GenerateRequest, *_: Any) -> Generated:
            image = RawImage(1, 1, b"abc")
            return Generated((Picture(0, 1, error=GenerateError(BROKE)), Picture(1, 2, image)))

    async with router_of(Half()) as router:
        result = await router.generate(prompt="a", num_images_per_prompt=2)
    assert len(result.images) == 1
    assert [str(error) for error in result.errors] == [BROKE]


@pytest.mark.parametrize(
    ("pictures", "sentence"),
    [((), "no picture"), ((Picture(0, 1, error=GenerateError(BROKE)),), BROKE)],
)
async def test_a_result_without_a_picture_is_a_failure(pictures: tuple[Picture, ...], sentence: str) -> None:
    class Empty(Double):
        async def generate(self, request: GenerateRequest, *_: Any) -> Generated:
            return Generated(pictures)

    async with router_of(Empty()) as router:
        with pytest.raises(GenerateError, match=sentence):
            await router.generate(prompt="a")


async def test_what_a_strange_backend_raises_is_an_error_of_the_house() -> None:
    a = Double()
    a.fails["generate"] = [ZeroDivisionError("secret")]
    async with router_of(a) as router:
        with pytest.raises(GenerateError, match="ZeroDivisionError") as caught:
            await router.generate(prompt="a")
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_an_unknown_model_is_told_with_the_known_ones() -> None:
    async with router_of(Double()) as router:
        with pytest.raises(ModelNotFoundError, match=r"'x'.* m"):
            await router.generate(prompt="a", model="x")


async def test_a_request_that_nobody_can_serve_loads_nothing() -> None:
    a = Double()
    async with router_of(a, probed=False) as router:
        with pytest.raises(NoRouteError) as caught:
            await router.generate(prompt="a", height=17)
    assert set(caught.value.rejections) == {"a"}
    assert a.calls == ["probe"]


async def test_a_request_that_can_never_fit_is_refused_before_anything_loads() -> None:
    a = Double(footprint=Footprint(1_000, 1_000, 0))
    async with router_of(a, device_memory={"gpu": 500_000}) as router:
        with pytest.raises(NoRouteError, match="16x16 fits"):
            await router.generate(prompt="a", height=64, width=64)
        assert a.calls == ["probe"]
        await router.generate(prompt="a", height=16, width=16)
