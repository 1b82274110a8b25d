"""The VAE's own dtype: float32 where float16 overflows, and then as Diffusers' own casting makes it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backends import _vae
from backends._vae import VaeOptions
from router.model_folder import ModelFolder
from tests.diffusers_doubles import Lanes, generate, loaded, make
from tests.miniatures import SIDE, Family, miniature
from tests.plain_pipelines import PICTURE, plain_pipeline


@pytest.mark.parametrize(
    ("family", "force_upcast", "dtype", "options", "expected"),
    [
        ("sdxl", None, torch.float16, {}, torch.float32),
        ("sdxl", True, torch.float16, {}, torch.float32),
        ("sdxl", False, torch.float16, {}, torch.float16),  # as sdxl-vae-fp16-fix says
        ("sdxl", True, torch.bfloat16, {}, torch.bfloat16),
        ("sdxl", True, torch.float16, {"vae_dtype": "float16"}, torch.float16),
        ("sd15", True, torch.float16, {}, torch.float16),
        ("flux", True, torch.bfloat16, {"vae_dtype": "float32"}, torch.float32),
    ],
)
def test_float32_where_the_familys_vae_overflows(
    family: Family,
    force_upcast: bool | None,
    dtype: torch.dtype,
    options: dict[str, Any],
    expected: torch.dtype,
    miniatures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = ModelFolder(miniature(family, miniatures), "m")
    own = folder.config("vae")
    own.pop("force_upcast", None)
    changed = own if force_upcast is None else own | {"force_upcast": force_upcast}
    config = folder.config
    monkeypatch.setattr(folder, "config", lambda name: changed if name == "vae" else config(name))
    assert _vae.vae_dtype(VaeOptions(**options), folder, dtype) == expected


def half(folder: Path, task: Any) -> Any:
    """The plain pipeline in float16 on the CPU, whose VAE would be cast around each picture."""
    pipeline = copy.copy(plain_pipeline(folder, task))
    made = type(pipeline)(**{name: copy.deepcopy(part) for name, part in pipeline.components.items()})
    made.set_progress_bar_config(disable=True)
    return made.to(torch.float16)


@pytest.mark.parametrize("task", ["text-to-image", "image-to-image"])
@torch.no_grad()
def test_pictures_are_those_of_diffusers_own_casting(task: Any, miniatures: Path) -> None:
    folder = miniature("sdxl", miniatures)
    fields: dict[str, Any] = {"prompt": "a red circle", "num_inference_steps": 4, "output_type": "np"}
    if task == "image-to-image":
        fields["image"] = torch.frombuffer(bytearray(PICTURE.pixels), dtype=torch.uint8).reshape(
            1, SIDE, SIDE, 3
        ).permute(0, 3, 1, 2).float().div(127.5).sub(1)  # fmt: skip
    made = []
    for ours in (False, True):
        pipeline = half(folder, task)
        if ours:
            _vae.keep_in(torch.float32, pipeline)
        generator = torch.Generator("cpu").manual_seed(0)
        made.append(pipeline(**fields, generator=generator).images[0])
        assert pipeline.vae.dtype == (torch.float32 if ours else torch.float16)
    assert np.isfinite(made).all()
    assert np.abs(made[0] - made[1]).max() < 4 / 255


@pytest.mark.may_block
async def test_a_dtype_of_its_own_is_kept_shown_and_counted(miniatures: Path, lanes: Lanes) -> None:
    folder = miniature("sd15", miniatures)
    plain = await make(lanes, folder, dtype="bfloat16").probe()
    backend = await loaded(lanes, folder, dtype="bfloat16", options={"vae_dtype": "float32"})
    found = await backend.probe()
    assert "VAE in float32" in found.notes
    elements = sum(each.elements for each in ModelFolder(folder, "m").tensors("vae").values())
    assert found.footprint.weights_bytes == plain.footprint.weights_bytes + 2 * elements
    for fields in ({}, {"image": PICTURE, "height": None, "width": None, "strength": 0.5}):
        assert (await generate(backend, **fields)).pictures[0].image is not None
    assert backend._pipelines["text-to-image"].vae.dtype == torch.float32
    assert backend._pipelines["text-to-image"].unet.dtype == torch.bfloat16
