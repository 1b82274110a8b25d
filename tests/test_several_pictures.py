"""Several pictures of one request: seeds one after the other, shared batches, and one that fails alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router import images
from router.config import InstanceConfig, Limits, ModelConfig, RouterConfig
from router.errors import GenerateError, InvalidRequestError
from router.models import SHIPPED_DEFAULTS
from router.router import BackendRouter
from router.types import RawImage
from tests.command_line import DEMO, as_object, configure, triptych
from tests.jobs_doubles import until
from tests.services import Service, fake_config, serving

ONE_FAILS = [{"at": "generate", "times": 1}]
ASK: dict[str, Any] = {"prompt": "a red circle on a white background", "num_inference_steps": 4}


def shapes() -> RouterConfig:
    instance = InstanceConfig(name="shapes", backend="diffusers", source="shipped:shapes", device="cpu")
    model = ModelConfig(name="shapes", instances=(instance,), defaults=SHIPPED_DEFAULTS)
    return RouterConfig(models=(model,), default_model="shapes", limits=Limits(max_images=6))


# --- Python


async def test_six_equal_six_asked_one_by_one_bit_for_bit_and_more_are_refused() -> None:
    """On the shipped model."""
    async with BackendRouter(shapes()) as router:
        six = await router.generate(**ASK, seed=7, num_images_per_prompt=6, reproducible=True, latents=True)
        alone = [
            (await router.generate(**ASK, seed=seed, reproducible=True, latents=True)).pictures[0]
            for seed in six.seeds
        ]
        shared = await router.generate(**ASK, seed=7, num_images_per_prompt=6)
        with pytest.raises(InvalidRequestError, match="at most 6") as caught:
            await router.generate(**ASK, num_images_per_prompt=7)
    assert caught.value.param == "num_images_per_prompt"
    assert six.seeds == (7, 8, 9, 10, 11, 12)
    assert [picture.image for picture in six.pictures] == [picture.image for picture in alone]
    assert [picture.fingerprint for picture in six.pictures] == [picture.fingerprint for picture in alone]
    assert len({picture.fingerprint for picture in six.pictures}) == 6
    assert shared.rows / shared.ticks > 6  # two rows each, all in common runs


@pytest.mark.parametrize("count", [1, 3, 6])
async def test_as_many_as_asked_share_their_runs(count: int) -> None:
    async with BackendRouter(fake_config()) as router:
        result = await router.generate(prompt="a", seed=5, num_images_per_prompt=count)
        alone = [await router.generate(prompt="a", seed=5 + index) for index in range(count)]
    assert result.seeds == tuple(range(5, 5 + count))
    assert result.images == tuple(each.images[0] for each in alone)
    assert result.rows / result.ticks == 2 * count


async def test_one_that_fails_leaves_the_others() -> None:
    async with BackendRouter(fake_config(faults=ONE_FAILS)) as router:
        result = await router.generate(prompt="a", seed=5, num_images_per_prompt=3)
        whole = await router.generate(prompt="a", seed=5, num_images_per_prompt=3)
    (failed,) = [picture for picture in result.pictures if picture.error]
    assert isinstance(failed.error, GenerateError)
    assert (failed.image, len(result.images), result.seeds) == (None, 2, (5, 6, 7))
    pairs = zip(result.pictures, whole.pictures, strict=True)
    assert all(mine.image == other.image for mine, other in pairs if mine.image is not None)


# --- HTTP


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path, fake_config(faults=ONE_FAILS)) as service:
        yield service


@pytest.mark.parametrize("path", ["/api/v1/generate", "/image/generate", "/v1/jobs"])
def test_json_holds_the_others_with_the_error_of_the_one(faulty: Service, path: str) -> None:
    made = faulty.post(path, prompt="a", seed=5, num_images_per_prompt=3).json()
    if path == "/v1/jobs":
        made = until(faulty, made, "done")
    (error,) = made["meta"]["errors"]
    assert error["code"] == "generate_failed"
    assert made["meta"]["seeds"] == [5, 6, 7]
    assert error["seed"] == 5 + error["index"]
    assert len(made["images"]) == 2
    if path != "/image/generate":
        assert sorted([error["seed"], *(each["seed"] for each in made["images"])]) == [5, 6, 7]


def test_openai_form_too(faulty: Service) -> None:
    made = faulty.post("/v1/images/generations", prompt="a", seed=5, n=3).json()
    (error,) = made["meta"]["errors"]
    assert sorted([error["seed"], *(each["seed"] for each in made["data"])]) == [5, 6, 7]


# --- command line


def test_the_command_line_saves_the_others(folder: Path) -> None:
    configure(folder, f'{DEMO}options = {{ faults = [{{ at = "generate", times = 1 }}] }}\n')
    result = triptych("generate", "a", "-n", "3", "--seed", "5", "-o", "out.png", "--json")
    said = as_object(result)
    assert result.exit_code == 1
    assert [each["file"] for each in said["pictures"]] == ["out-1.png", "out-2.png"]
    assert [error["code"] for error in said["errors"]] == ["generate_failed"]
    seeds = {each["parameters"]["seed"] for each in said["pictures"]}
    assert len(seeds) == 2
    assert seeds < {5, 6, 7}


def test_mode_and_fingerprint_are_in_the_pictures_text_and_the_latents_beside_it(folder: Path) -> None:
    (folder / "in.png").write_bytes(images.encode(RawImage(64, 64, bytes(64 * 64 * 3))))
    asked = ("generate", "a", "--image", "in.png", "--exact-copy", "-n", "2", "-o", "out.png")
    said = as_object(triptych(*asked, "--latents", "out.safetensors", "--json"))
    assert [each["latents"] for each in said["pictures"]] == ["out-1.safetensors", "out-2.safetensors"]
    assert (folder / "out-2.safetensors").stat().st_size > 4 * 8 * 8 * 2
    record = json.loads(images.read_metadata((folder / "out-1.png").read_bytes())["triptych"])
    assert record["reference_mode"] == "copy"
    assert len(base64.b64decode(record["fingerprint"])) == 512
    assert record["parameters"]["strength"] == 0.05


def test_reference_strength_and_contradictions_on_the_command_line(folder: Path) -> None:
    (folder / "in.png").write_bytes(images.encode(RawImage(64, 64, bytes(64 * 64 * 3))))
    asked = ("generate", "a", "--image", "in.png", "--reference-strength", "0.25")
    record = as_object(triptych(*asked, "--json"))["pictures"][0]
    assert (record["parameters"]["strength"], record["reference_mode"]) == (0.75, "modify")
    refused = triptych(*asked, "--exact-copy")
    assert refused.exit_code == 3
    assert "`--reference-strength`" in refused.stderr
    assert "`--exact-copy`" in refused.stderr


@pytest.mark.parametrize("name", ["out.bin", "missing/out.safetensors"])
def test_latents_that_could_not_be_written_are_refused_before_any_work(folder: Path, name: str) -> None:
    refused = triptych("generate", "a", "--latents", name)
    assert refused.exit_code == 2
    assert "`--latents`" in refused.stderr
