"""Larger pictures: by a network in tiles that share runs, by Lanczos with leave, through one router."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from backends._tiles import spans
from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.errors import (
    ConfigError,
    DeadlineExceededError,
    InvalidRequestError,
    LoadError,
    NoRouteError,
    RouterError,
)
from router.router import BackendRouter
from router.types import RawImage, Step
from tests.pictures import painted, pil, varied
from tests.plain_pipelines import pixels
from tests.services import fake_config
from tests.upscalers import compact

LEAVE = {"upscaler"}


def config(source: Path | str, backend: str = "spandrel", **fields: Any) -> RouterConfig:
    """A model that paints, and behind it one that makes pictures larger."""
    instance = InstanceConfig(name="large", backend=backend, source=str(source), device="cpu", **fields)
    return fake_config().model_copy(
        update={"models": (*fake_config().models, ModelConfig(name="large", instances=(instance,)))}
    )


@pytest.fixture(scope="module")
def x4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compact(tmp_path_factory.mktemp("networks") / "x4.safetensors")


def plain(file: Path, image: RawImage) -> np.ndarray[Any, Any]:
    """What the user of spandrel would have written, without tiles."""
    from spandrel import ModelLoader

    small = torch.from_numpy(pixels(image).copy()).permute(2, 0, 1)[None] / 255
    large = ModelLoader().load_from_file(file)(small)[0].permute(1, 2, 0)
    return (large.numpy() * 255).round().astype(np.uint8)


# --- by a network


async def test_a_network_makes_it_as_spandrel_does(x4: Path) -> None:
    image = varied(40, 56)
    async with BackendRouter(config(x4)) as router:
        result = await router.upscale(image)
    (made,) = result.images
    assert (made.height, made.width) == (160, 224)
    assert np.abs(pixels(made).astype(int) - plain(x4, image)).max() <= 1
    assert (result.backend, result.request.model, result.request.task) == ("spandrel", "large", "upscale")
    assert result.adjustments == ()
    assert result.reference_mode == "none"


async def test_tiles_leave_no_seams_and_those_of_several_requests_share_runs(x4: Path) -> None:
    images = [varied(150, 200), varied(140, 90), varied(130, 150)]
    options = {"tile": 64, "overlap": 8}
    async with BackendRouter(config(x4, options=options)) as router:
        results = await asyncio.gather(*[router.upscale(image) for image in images])
        lane = router.statistics().lanes["cpu"]
    for image, result in zip(images, results, strict=True):
        assert np.abs(pixels(result.images[0]).astype(int) - plain(x4, image)).max() <= 1
    assert lane.occupancy > 1.5


async def test_each_tile_is_a_step_that_can_be_the_last(x4: Path) -> None:
    image = varied(200, 200)
    async with BackendRouter(config(x4, options={"tile": 64})) as router:
        steps = [event async for event in router.stream(image=image, scale=4) if isinstance(event, Step)]
        with pytest.raises(DeadlineExceededError):
            await router.upscale(image, deadline_s=1e-9)
    assert [step.index for step in steps] == list(range(1, steps[-1].total + 1))
    assert steps[-1].total > 9


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"scale": 2}, "`scale` must be 4"),
        ({"prompt": "sharper"}, "`prompt` has no effect"),
        ({"num_inference_steps": 20}, "`num_inference_steps` has no effect"),
        ({"num_images_per_prompt": 2}, "`num_images_per_prompt` has no effect"),
        ({"guidance_scale": 5.0}, "`guidance_scale` has no effect"),
        ({"negative_prompt": "blur"}, "`negative_prompt` is not a parameter"),
        ({"scheduler": "DDIM"}, "no scheduler 'DDIM'"),
        ({"latents": True}, "does not hand out `latents`"),
    ],
)
async def test_what_a_network_does_not_look_at_is_refused(
    x4: Path, fields: dict[str, Any], said: str
) -> None:
    async with BackendRouter(config(x4)) as router:
        route = await router.explain(image=painted(8, 8), **{"scale": 4} | fields, model="large")
    assert said in route.rejections["large"]


async def test_a_network_does_not_paint(x4: Path) -> None:
    async with BackendRouter(config(x4)) as router:
        with pytest.raises(NoRouteError, match="it does upscale, not text-to-image"):
            await router.generate(prompt="a", model="large")
        await router.load("large")
        assert {each.name: each.state for each in router.instances()}["large"] == "ready"


async def test_files_that_are_no_upscaler_are_refused_with_the_cure(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(3)}, other)
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    (tmp_path / "pickled.pth").write_bytes(b"\x80\x02.")
    wrong = {
        "pickled.pth": "is no safetensors file",
        "absent.safetensors": "is no safetensors file",
        "broken.safetensors": "is no network that spandrel knows",
        "other.safetensors": "is no network that spandrel knows",
        compact(tmp_path / "x8.safetensors", scale=8).name: "2 or 4 times larger",
        compact(tmp_path / "gray.safetensors", channels=1).name: "not made for RGB",
    }
    for name, said in wrong.items():
        async with BackendRouter(config(tmp_path / name)) as router:
            with pytest.raises(RouterError, match=said) as caught:
                await router.upscale(painted(8, 8), model="large")
        assert isinstance(caught.value, LoadError)
        assert str(tmp_path) not in str(caught.value)


async def test_settings_that_make_no_sense_are_refused(x4: Path) -> None:
    for fields, said in (
        ({"options": {"tile": 64, "overlap": 32}}, "overlap"),
        ({"dtype": "float16"}, "dtype"),
    ):
        async with BackendRouter(config(x4, **fields)) as router:
            with pytest.raises(ConfigError, match=said):
                await router.upscale(painted(8, 8), model="large")


async def test_diffusers_own_upscalers_are_refused_and_not_taken_for_painters(model_folder: Path) -> None:
    index = model_folder / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "StableDiffusionUpscalePipeline"))
    async with BackendRouter(config(model_folder, "diffusers")) as router:
        with pytest.raises(LoadError, match="makes pictures larger"):
            await router.upscale(painted(8, 8), model="large")


# --- which model, and Lanczos


async def test_without_an_upscaler_it_is_refused_and_with_leave_lanczos_says_its_name() -> None:
    image = varied(30, 40)
    async with BackendRouter(fake_config()) as router:
        with pytest.raises(NoRouteError, match="`upscaler` in `allow_adjustments`"):
            await router.upscale(image, 2)
        result = await router.upscale(image, 2, allow_adjustments=LEAVE)
        by_name = await router.upscale(image, 2, model="lanczos", allow_adjustments=LEAVE)
        with pytest.raises(NoRouteError, match="allow it"):
            await router.upscale(image, 2, model="lanczos")
    assert (result.backend, result.request.model) == ("lanczos", "lanczos")
    assert result.adjustments == (
        "The picture was made larger by Lanczos resampling, which adds no detail to it.",
    )
    expected = pil(image).resize((80, 60), 1)  # 1 is Lanczos, as Pillow counts
    assert result.images[0].pixels == by_name.images[0].pixels == expected.tobytes()


async def test_a_model_that_can_goes_before_lanczos_even_with_leave(x4: Path) -> None:
    async with BackendRouter(config(x4)) as router:
        able = await router.upscale(painted(8, 8), allow_adjustments=LEAVE)
        other_scale = await router.upscale(painted(8, 8), 2, allow_adjustments=LEAVE)
        with pytest.raises(NoRouteError, match="`scale` must be 4"):
            await router.upscale(painted(8, 8), 2)
        with pytest.raises(NoRouteError, match="it does image-to-image"):
            await router.upscale(painted(8, 8), model="demo")
    assert (able.backend, other_scale.backend) == ("spandrel", "lanczos")


async def test_lanczos_is_in_no_list() -> None:
    async with BackendRouter(fake_config()) as router:
        await router.upscale(painted(8, 8), allow_adjustments=LEAVE)
        assert [each.name for each in router.instances()] == ["demo/fake"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"scale": 3}, "scale"),
        ({"scale": 2.5}, "scale"),
        ({"strength": 0.5}, "strength"),
        ({"reference_strength": 0.5}, "reference_strength"),
        ({"mask_image": painted(8, 8)}, "mask_image"),
        ({"enhance": True}, "enhance"),
        ({"height": 8}, "height"),
        ({"image": painted(2000, 2000)}, "scale"),
    ],
)
async def test_what_has_no_place_beside_scale_is_named(fields: dict[str, Any], param: str) -> None:
    async with BackendRouter(fake_config()) as router:
        with pytest.raises(InvalidRequestError) as caught:
            await router.generate(**{"image": painted(8, 8), "scale": 4} | fields)
    assert caught.value.param == param


# --- tiles


@given(st.integers(1, 700), st.integers(64, 256), st.integers(0, 31))
def test_tiles_keep_each_pixel_once_and_far_from_their_edges(length: int, tile: int, overlap: int) -> None:
    found = spans(length, tile, overlap)
    kept = [pixel for span in found for pixel in range(span.keep_start, span.keep_stop)]
    assert kept == list(range(length))
    assert len({span.stop - span.start for span in found}) == 1
    for span in found:
        assert 0 <= span.start <= span.keep_start < span.keep_stop <= span.stop <= length
        assert span.start == 0 or span.keep_start - span.start >= overlap
        assert span.stop == length or span.stop - span.keep_stop >= overlap
