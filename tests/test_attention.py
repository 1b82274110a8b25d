"""Attention and the VAE's memory settings: chosen by themselves, shown, refused where they cannot be."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from backends import _attention, _vae
from backends._vae import VaeOptions, VaePlan
from router.errors import ConfigError
from router.model_folder import ModelFolder
from tests.command_line import configure, triptych
from tests.diffusers_doubles import Lanes, loaded, make
from tests.miniatures import Family, miniature


@pytest.mark.parametrize(
    ("device", "unet", "xformers", "sdpa", "name"),
    [
        ("cuda:0", True, True, True, "xformers"),
        ("cuda:0", True, False, True, "native"),
        ("cuda:0", False, True, True, "native"),
        ("cpu", True, True, True, "native"),
        ("cpu", True, False, False, "slicing"),
    ],
)
def test_the_best_attention_that_is_there(
    device: str, unet: bool, xformers: bool, sdpa: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_attention, "_has_xformers", lambda: xformers)
    if not sdpa:
        monkeypatch.delattr(torch.nn.functional, "scaled_dot_product_attention")
    chosen = _attention.choose("auto", device, "m", unet=unet)
    assert chosen.name == name
    assert chosen.note.startswith(f"attention {name}")


@pytest.mark.parametrize(
    ("family", "attention", "sentence"),
    [
        ("sd15", "xformers", "is 'xformers', which is not installed; `pip install xformers`, or use `auto`"),
        ("sd15", "flash", "is 'flash', which this model has not; use one of auto, "),
        ("flux", "slicing", "is 'slicing', which UNets alone have; use `auto`"),
        ("flux", "fast", "is 'fast', which this model has not; use one of auto, "),
    ],
)
async def test_attention_that_cannot_be_is_refused_at_the_probe(
    family: Family, attention: str, sentence: str, miniatures: Path, lanes: Lanes
) -> None:
    with pytest.raises(ConfigError) as caught:
        await make(lanes, miniature(family, miniatures), options={"attention": attention}).probe()
    assert sentence in str(caught.value)


async def test_xformers_is_refused_on_a_cpu(
    model_folder: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_attention, "_has_xformers", lambda: True)
    with pytest.raises(ConfigError, match="'xformers', which runs on CUDA alone"):
        await make(lanes, model_folder, options={"attention": "xformers"}).probe()


async def test_a_setting_that_a_model_would_not_notice_is_refused(miniatures: Path, lanes: Lanes) -> None:
    """SD3 computes its attention without Diffusers' dispatch; FLUX does with it."""
    options = {"attention": "_native_math"}
    backend = await loaded(lanes, miniature("flux", miniatures), options=options)
    processors = backend._pipelines["text-to-image"].transformer.attn_processors.values()
    assert {each._attention_backend.value for each in processors} == {"_native_math"}
    with pytest.raises(ConfigError, match="which this model or machine has not; use `auto`"):
        await loaded(lanes, miniature("sd3", miniatures), options=options)


def planned(folder: Path, found: Any, memory_bytes: int | None, **options: Any) -> VaePlan:
    found = dataclasses.replace(found, device_memory_bytes=memory_bytes)
    return _vae.plan(VaeOptions(**options), ModelFolder(folder, "m"), found, torch.float32, pictures=4)


@pytest.mark.may_block
async def test_tiles_and_slices_begin_where_memory_gets_short(model_folder: Path, lanes: Lanes) -> None:
    found = await make(lanes, model_folder).probe()
    picture = found.footprint.decode_bytes_per_pixel
    weights = found.footprint.weights_bytes
    assert planned(model_folder, found, None) == VaePlan(torch.float32)
    assert planned(model_folder, found, weights + 2 * picture * 5000**2) == VaePlan(torch.float32)
    short = planned(model_folder, found, weights + 2 * picture * 1000**2)
    assert (short.tiling, short.tile_side, short.slicing) == (True, 960, False)
    shorter = planned(model_folder, found, weights + 2 * picture * 100**2)
    assert (shorter.tiling, shorter.tile_side, shorter.slicing) == (True, 512, True)
    assert shorter.notes() == ("VAE in tiles above 512 pixels a side", "VAE one picture at a time")
    kept = planned(model_folder, found, weights, vae_tiling=False, vae_slicing=False)
    assert kept == VaePlan(torch.float32)


@pytest.mark.parametrize("name", ["tiling", "slicing"])
def test_what_a_vae_cannot_do_is_refused(name: str, model_folder: Path) -> None:
    file = model_folder / "vae" / "config.json"
    file.write_text(json.dumps({"_class_name": "VQModel"}))
    with pytest.raises(ConfigError, match=f"`vae_{name}` is true, but the VAE, a VQModel, has no {name}"):
        _vae.check(VaeOptions(**{f"vae_{name}": True}), ModelFolder(model_folder, "m"), "m")
    _vae.check(VaeOptions(), ModelFolder(model_folder, "m"), "m")


async def test_large_pictures_are_decoded_in_tiles_and_small_ones_whole(
    model_folder: Path, lanes: Lanes
) -> None:
    backend = await loaded(lanes, model_folder)
    pipeline = backend._pipelines["text-to-image"]
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = pipeline.vae.decode(latents).sample
        _vae.apply(VaePlan(torch.float32, tiling=True, tile_side=128), pipeline)
        assert torch.equal(pipeline.vae.decode(latents).sample, whole)
        _vae.apply(VaePlan(torch.float32, tiling=True, tile_side=64), pipeline)
        assert not torch.equal(pipeline.vae.decode(latents).sample, whole)


def test_what_was_chosen_is_shown(folder: Path, miniatures: Path) -> None:
    source = miniature("sd15", miniatures)
    configure(
        folder,
        f'[[models.photo.instances]]\nbackend = "diffusers"\nsource = "{source}"\ndevice = "cpu"\n'
        "options = { vae_tiling = true, vae_slicing = true }\n",
    )
    said = " ".join(triptych("backends").stdout.replace("│", " ").split())
    for words in ("attention native, PyTorch's own", "VAE in tiles", "VAE one picture at a time"):
        assert words in said
