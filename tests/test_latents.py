"""Latents beside a picture: they are what it was decoded from, and their fingerprint is as documented."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from backends._latents import _file, fingerprint
from router.lane import Lane
from router.request import GenerateRequest
from router.types import Picture
from tests.exports import Exports
from tests.miniatures import SIDE, Family, miniature
from tests.onnx_doubles import loaded
from tests.plain_pipelines import PICTURE, mixed_requests, pixels, plain_pipeline
from tests.test_pipelines import backend_of

Lanes = Callable[[str], Lane]


def decoded(latents: torch.Tensor, facts: dict[str, str], folder: Path) -> np.ndarray[Any, Any]:
    """The picture that the documentation says these latents make, by plain Diffusers."""
    pipeline = plain_pipeline(folder, "text-to-image")
    scaled = latents[None] / float(facts["scaling_factor"]) + float(facts["shift_factor"])
    with torch.no_grad():
        image = pipeline.vae.decode(scaled).sample
    return np.asarray(pipeline.image_processor.postprocess(image)[0])


def opened(picture: Picture, folder: Path) -> tuple[torch.Tensor, dict[str, str]]:
    assert picture.latents is not None
    file = folder / "latents.safetensors"
    file.write_bytes(picture.latents)
    with safe_open(file, "pt") as read:
        return read.get_tensor("latents"), read.metadata()


@pytest.mark.parametrize(("family", "channels"), [("sd15", 4), ("sdxl", 4), ("sd3", 16), ("flux", 16)])
async def test_latents_decode_to_their_picture(
    family: Family, channels: int, miniatures: Path, tmp_path: Path, lanes: Lanes
) -> None:
    folder = miniature(family, miniatures)
    backend = await backend_of(folder, lanes)
    (request, *_) = mixed_requests("text-to-image", 1, latents=True)
    (picture,) = (await backend.generate(request, lambda event: None, None)).pictures
    latents, facts = opened(picture, tmp_path)
    assert tuple(latents.shape) == (channels, SIDE // 8, SIDE // 8)
    off = decoded(latents, facts, folder).astype(int) - pixels(picture.image)
    assert np.abs(off).max() <= 1
    assert picture.fingerprint == fingerprint(latents)
    await backend.unload()


async def test_equal_pictures_have_equal_fingerprints_and_others_another(
    miniatures: Path, lanes: Lanes
) -> None:
    backend = await backend_of(miniature("sd15", miniatures), lanes)
    asked = mixed_requests("image-to-image", 1, latents=True, reproducible=True)[0]

    async def made(request: GenerateRequest) -> Picture:
        return (await backend.generate(request, lambda event: None, None)).pictures[0]

    one, same = await made(asked), await made(asked)
    other = await made(asked.model_copy(update={"seed": 99}))
    without = await made(asked.model_copy(update={"latents": False}))
    assert (one.fingerprint, one.latents) == (same.fingerprint, same.latents)
    assert one.fingerprint != other.fingerprint
    assert (without.latents, without.fingerprint) == (None, None)
    assert without.image == one.image
    await backend.unload()


async def test_exports_hand_them_out_too(
    miniatures: Path, exports: Exports, tmp_path: Path, lanes: Lanes
) -> None:
    backend = await loaded(lanes, exports("sd15"))
    (request, *_) = mixed_requests("image-to-image", 1, latents=True)
    (picture,) = (await backend.generate(request, lambda event: None, None)).pictures
    latents, facts = opened(picture, tmp_path)
    off = decoded(latents, facts, miniature("sd15", miniatures)).astype(int) - pixels(picture.image)
    assert np.abs(off).max() <= 1
    await backend.unload()


# --- the fingerprint


def test_a_fingerprint_is_4_x_8_x_8_half_floats() -> None:
    cells = torch.arange(4 * 8 * 8, dtype=torch.float32).reshape(4, 8, 8) / 7
    made = np.frombuffer(fingerprint(cells), "<f2").reshape(4, 8, 8)
    assert np.array_equal(made, cells.numpy().astype(np.float16))


def test_sixteen_channels_become_four_by_the_mean_of_neighbours_and_cells_by_the_mean_of_their_area() -> None:
    cells = torch.randn(16, 24, 16, generator=torch.Generator().manual_seed(0))
    made = np.frombuffer(fingerprint(cells), "<f2").reshape(4, 8, 8)
    expected = cells.numpy().reshape(4, 4, 8, 3, 8, 2).mean(axis=(1, 3, 5))
    assert np.abs(made - expected).max() < 1e-3


def test_the_fingerprint_of_half_precision_latents_is_pooled_in_full() -> None:
    cells = torch.full((4, 16, 16), 60_000.0).half()  # whose sum passes what half floats hold
    assert set(np.frombuffer(fingerprint(cells), "<f2").tolist()) == {np.float16(60_000).item()}


def test_equal_latents_are_equal_files_however_often_they_are_written(miniatures: Path) -> None:
    config = plain_pipeline(miniature("sd3", miniatures), "text-to-image").vae.config
    cells = torch.randn(16, 8, 8, generator=torch.Generator().manual_seed(0))
    files = {_file(cells, config) for _ in range(40)}  # the library's own order is another each time
    assert len(files) == 1
    assert torch.equal(safetensors.torch.load(files.pop())["latents"], cells)


def test_the_file_holds_one_tensor_and_no_pickle() -> None:
    from backends._fake_latents import with_latents

    made = with_latents(PICTURE, b"\x00\x80\xff")
    tensors = safetensors.torch.load(made.latents)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {"latents": (4, 8, 8)}
    assert len(made.fingerprint) == 512
