"""What makes a denoiser faster and is off by default: it is applied, and pictures stay the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.torch_version import TorchVersion

from backends import _fp8, _speed
from backends._speed import SpeedOptions
from router.errors import ConfigError
from tests.diffusers_doubles import Lanes, generate, loaded
from tests.miniatures import Family, miniature
from tests.test_compiled import pixels


@pytest.fixture
def torch_settings() -> Iterator[None]:
    """What is said of TF32 is said for the whole process."""
    was = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = was
    _speed._tf32_said.clear()


@pytest.mark.parametrize("family", ["sd15", "flux"])
@pytest.mark.parametrize("option", ["fuse_qkv", "channels_last"])
async def test_faster_ways_make_the_same_picture(
    family: Family, option: str, miniatures: Path, lanes: Lanes
) -> None:
    source = miniature(family, miniatures)
    plain = await loaded(lanes, source)
    other = await loaded(lanes, source, options={option: True})
    fields = {"height": 64, "width": 64, "num_inference_steps": 2}
    difference = pixels(await generate(plain, **fields)) - pixels(await generate(other, **fields))
    assert difference.abs().max() <= 1
    assert option in (await other.probe()).notes


async def test_what_the_library_cannot_fuse_is_refused(miniatures: Path, lanes: Lanes) -> None:
    with pytest.raises(ConfigError, match="SD3Transformer2DModel"):
        await loaded(lanes, miniature("sd3", miniatures), options={"fuse_qkv": True})


async def test_projections_are_fused_and_weights_laid_out(miniatures: Path, lanes: Lanes) -> None:
    options = {"fuse_qkv": True, "channels_last": True}
    backend = await loaded(lanes, miniature("sd15", miniatures), options=options)
    unet = backend._pipelines["text-to-image"].unet
    assert any(name.endswith("to_qkv") for name, _ in unet.named_modules())
    assert unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_tf32_is_one_setting_for_all(torch_settings: None) -> None:
    _speed.allow_tf32(True, "a")
    assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32
    _speed.allow_tf32(True, "b")
    with pytest.raises(ConfigError, match="b says otherwise"):
        _speed.allow_tf32(False, "c")
    _speed.allow_tf32(False, "b")
    assert not torch.backends.cudnn.allow_tf32


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Test Card")


@pytest.mark.parametrize(
    ("capability", "dtype", "words"),
    [
        ((8, 6), torch.bfloat16, "which a Test Card does not multiply"),
        ((9, 0), torch.float16, "wants `dtype` bfloat16"),
        ((9, 0), torch.bfloat16, "pip install torchao"),
    ],
)
def test_fp8_says_what_it_lacks(
    card: None, capability: Any, dtype: torch.dtype, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=words):
        _fp8.check("mine", "cuda:0", dtype)


def test_cuda_graphs_want_a_torch_that_records_on_a_lanes_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    options = SpeedOptions(compile=True, cuda_graphs=True)
    _speed.check_device(options, "mine", "cuda:0", torch.float16)
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.12.1+cu130"))
    with pytest.raises(ConfigError, match=r"needs torch 2.13 or later.* this is 2.12.1"):
        _speed.check_device(options, "mine", "cuda:0", torch.float16)


def test_fp8_is_for_large_linear_layers() -> None:
    assert _fp8.fits(torch.nn.Linear(32, 64), "blocks.0.to_q")
    assert not _fp8.fits(torch.nn.Linear(32, 40), "blocks.0.to_q")
    assert not _fp8.fits(torch.nn.Linear(32, 64), "time_embedding.linear_1")
    assert not _fp8.fits(torch.nn.Conv2d(16, 16, 1), "proj_in")
