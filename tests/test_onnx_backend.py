"""An export beside other instances: what it can do, what is promised of it, and who serves the rest."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.router import BackendRouter
from router.settings import load_config
from router.types import Step
from tests.exports import Exports
from tests.miniatures import miniature
from tests.onnx_doubles import Lanes, change_manifest, generate, instance, loaded, make, request
from tests.plain_pipelines import PICTURE, pixels


@pytest.fixture
def sd15(exports: Exports) -> Path:
    return exports("sd15")


async def test_what_it_can_do_is_known_without_loading(sd15: Path, lanes: Lanes) -> None:
    found = await make(lanes, sd15).probe()
    assert found.tasks == {"text-to-image", "image-to-image", "inpainting"}
    assert [(each.height, each.width, each.row_buckets) for each in found.profiles] == [(64, 64, (2, 8))]
    assert (found.defaults.height, found.defaults.width) == (64, 64)
    assert (found.device, found.dtype, found.previews) == ("cpu", "float32", True)
    assert found.footprint.weights_bytes >= await asyncio.to_thread(_graph_bytes, sd15)


async def test_without_an_encoder_no_picture_can_be_given(sd15: Path, tmp_path: Path, lanes: Lanes) -> None:
    folder = await asyncio.to_thread(_without_encoder, sd15, tmp_path / "sd15")
    backend = await loaded(lanes, folder)
    found = await backend.probe()
    assert found.tasks == {"text-to-image"}
    assert not found.previews
    assert "it does text-to-image, not image-to-image" in str(found.why_not(request(image=PICTURE)))
    assert (await generate(backend)).pictures[0].image


def _graph_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*/*.onnx*"))


def _without_encoder(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    shutil.rmtree(folder / "vae_encoder")

    def change(content: dict[str, Any]) -> None:
        content["components"].pop("vae_encoder")
        content["files"] = {
            name: record for name, record in content["files"].items() if not name.startswith("vae_encoder/")
        }

    change_manifest(folder, change)
    return folder


async def test_a_reproducible_picture_is_the_same_whatever_runs_beside_it(sd15: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, sd15)
    alone = await generate(backend, reproducible=True)
    others = [generate(backend, seed=seed, num_inference_steps=3 + seed) for seed in range(2, 6)]
    among = await generate(backend, reproducible=True)
    await asyncio.gather(*others)
    assert among.pictures[0].image == alone.pictures[0].image


@pytest.mark.parametrize("family", ["sd15", "flux"])
async def test_steps_and_previews_are_reported(family: str, exported: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, exported)
    steps: list[Any] = []
    await backend.generate(request(previews=True), steps.append, None)
    assert [(step.index, step.total) for step in steps if isinstance(step, Step)] == [
        (1, 4), (2, 4), (3, 4), (4, 4)
    ]  # fmt: skip
    previews = [pixels(step.preview) for step in steps]
    assert {preview.shape for preview in previews} == {(8, 8, 3)}
    assert previews[-1].std() > 0


@pytest.fixture
def exported(family: str, exports: Exports) -> Path:
    return exports(family)


async def test_a_cancelled_request_ends_at_its_next_call(sd15: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, sd15)
    begun = asyncio.Event()
    asked = request(num_inference_steps=150)
    running = asyncio.create_task(backend.generate(asked, lambda event: begun.set(), None))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert backend.lane.statistics().ticks < 150
    assert (await generate(backend)).pictures[0].image


async def test_what_was_unloaded_can_be_loaded_again(sd15: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, sd15)
    first = await generate(backend)
    await backend.unload()
    await backend.load()
    assert (await generate(backend)).pictures[0].image == first.pictures[0].image


def both(source: Path, exported: Path) -> RouterConfig:
    """A model served by its export, and by Diffusers."""
    instances = (
        instance(exported, name="exported"),
        InstanceConfig(name="plain", backend="diffusers", source=str(source), device="cpu"),
    )
    return RouterConfig(models=(ModelConfig(name="model", instances=instances),), default_model="model")


async def test_a_size_that_no_profile_has_is_served_by_the_next_instance(
    sd15: Path, miniatures: Path
) -> None:
    async with BackendRouter(both(miniature("sd15", miniatures), sd15)) as router:
        assert (await router.generate(request())).instance == "exported"
        other = request(height=80, width=96)
        route = await router.explain(other)
        assert route.candidates == ("plain",)
        assert "are made for 64x64 (height x width), not 80x96" in route.rejections["exported"]
        assert (await router.generate(other)).instance == "plain"


@pytest.mark.may_block(reason="the test itself changes a file")
async def test_an_export_that_cannot_be_loaded_leaves_its_place_to_the_next_instance(
    sd15: Path, miniatures: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(sd15, tmp_path / "sd15"))
    (folder / "unet" / "model.onnx").write_bytes(b"damaged")
    async with BackendRouter(both(miniature("sd15", miniatures), folder)) as router:
        result = await router.generate(request())
    assert result.instance == "plain"
    assert "`unet/model.onnx` has 7 bytes" in result.attempts[0].error


@pytest.mark.parametrize("backend", ["onnxruntime", "diffusers"])
async def test_one_variable_switches_between_the_backends(
    backend: str, sd15: Path, miniatures: Path, tmp_path: Path
) -> None:
    config = await asyncio.to_thread(_configuration, tmp_path, backend, miniature("sd15", miniatures), sd15)
    async with BackendRouter(config) as router:
        result = await router.generate(request())
    assert (result.backend, result.images[0].height) == (backend, 64)


def _configuration(directory: Path, backend: str, source: Path, exported: Path) -> RouterConfig:
    (directory / "triptych.toml").write_text(f"""
[models.tiny]
[[models.tiny.instances]]
backend = "diffusers"
source = "{source}"
device = "cpu"
[[models.tiny.instances]]
backend = "onnxruntime"
source = "{exported}"
device = "cpu"
options = {{ unverified = true }}
""")
    return load_config(environ={"TRIPTYCH_BACKENDS": backend}, directory=directory)
