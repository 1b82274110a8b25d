"""Models from one file: the same pictures as from the folder they were made of, and no hub."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from backends.diffusers import DiffusersBackend
from router.types import TASKS, Task
from tests.diffusers_doubles import Lanes, loaded
from tests.miniatures import BUILDERS, FAMILIES, Family, draw_weights
from tests.pipeline_layout import save_pipeline
from tests.plain_pipelines import difference, mixed_requests, plain_pipeline
from tests.single_files import narrow_flux, single_file, source

__all__ = ["narrow_flux"]

pytestmark = pytest.mark.usefixtures("narrow_flux", "without_network")

LAYOUTS: dict[str, tuple[Family, dict[str, Any]]] = {
    "FLUX: only the denoiser, without a prefix": ("flux", {"only": ["transformer"], "bare": True}),
    "SD3: denoiser and VAE": ("sd3", {"only": ["transformer", "vae"]}),
    "SD3: all but T5": ("sd3", {"only": ["transformer", "vae", "text_encoder", "text_encoder_2"]}),
    "SDXL: all but the VAE": ("sdxl", {"only": ["unet", "text_encoder", "text_encoder_2"]}),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("single-files")


@pytest.fixture
def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("somebody asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def move_weights(pipeline: Any) -> None:
    """Out of the mapped file, where they lie as its header's length has it.

    The libraries sum in another order at another alignment, which tells in the seventh digit.
    """
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            for weight in module.state_dict(keep_vars=True).values():
                weight.data = weight.data.clone()


async def from_file(lanes: Lanes, file: Path) -> DiffusersBackend:
    backend = await loaded(lanes, file)
    move_weights(next(iter(backend._pipelines.values())))
    return backend


async def differs_by(backend: DiffusersBackend, folder: Path, task: Task) -> int:
    move_weights(plain_pipeline(folder, task))
    (request,) = mixed_requests(task, 1, reproducible=True)
    made = await backend.generate(request, lambda event: None, None)
    return difference(made, folder, request)


@pytest.mark.parametrize("family", FAMILIES)
async def test_pictures_are_those_of_the_folder_bit_for_bit(family: Family, root: Path, lanes: Lanes) -> None:
    backend = await from_file(lanes, single_file(family, root))
    assert [await differs_by(backend, source(family, root), task) for task in TASKS] == [0, 0, 0]


async def test_a_checkpoint_made_for_inpainting_does_that_alone(root: Path, lanes: Lanes) -> None:
    parts = BUILDERS["sd15"]() | {
        "_class_name": "StableDiffusionInpaintPipeline",
        "_diffusers_version": "0.30.0",
    }
    wide = UNet2DConditionModel.from_config(parts["unet"][1].config, in_channels=9)
    parts |= {"unet": ("diffusers", wide)}
    draw_weights(parts)
    save_pipeline(parts, root / "inpainting")
    backend = await from_file(lanes, single_file("sd15", root, of=root / "inpainting"))
    assert (await backend.probe()).tasks == {"inpainting"}
    assert await differs_by(backend, root / "inpainting", "inpainting") == 0


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_what_the_file_lacks_comes_from_the_folder(layout: str, root: Path, lanes: Lanes) -> None:
    family, how = LAYOUTS[layout]
    backend = await from_file(lanes, single_file(family, root, **how))
    assert await differs_by(backend, source(family, root), "text-to-image") == 0
