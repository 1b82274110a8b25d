"""Single-file checkpoints of the miniature models, made as the makers of such models publish them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType

import pytest
import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModelWithProjection

from tests.miniatures import BUILDERS, TEXT_WIDTH, Family, draw_weights, miniature
from tests.original_layouts import DENOISER, published
from tests.pipeline_layout import Parts, save_pipeline

WIDTH = 32
"""Of the miniature FLUX."""

SECOND_WIDTH = 24
"""Of the second CLIP: Diffusers tells the two of a checkpoint apart by their widths alone."""


def single_file(
    family: Family, root: Path, *, only: Sequence[str] = (), bare: bool = False, of: Path | None = None
) -> Path:
    """A checkpoint in a folder of `root`, its configurations in a folder of the same name beside it.

    `only` these components go into it, the others' weights into the configurations; `bare` leaves out
    what stands before the denoiser's names. `of` another folder than `source`.
    """
    folder = of or source(family, root)
    target = root / "-".join([folder.name, *(only or ["all"]), "bare" if bare else "prefixed"])
    if target.exists():
        return target / "tiny.safetensors"
    weights = {file.parent.name: load_file(file) for file in sorted(folder.glob("*/*.safetensors"))}
    inside = set(only or weights)
    target.mkdir()
    state: dict[str, torch.Tensor] = {}
    for component in sorted(inside):
        prefix, renamed = published(family, component, weights[component])
        prefix = "" if bare and prefix == DENOISER else prefix
        state |= {prefix + name: value for name, value in renamed.items()}
    save_file(state, target / "tiny.safetensors", metadata={"format": "pt"})
    copied = shutil.copytree(folder, target / "tiny")
    for component in inside:
        next((copied / component).glob("*.safetensors")).unlink()
    return target / "tiny.safetensors"


def source(family: Family, root: Path) -> Path:
    """The folder of the model that the checkpoint is made of."""
    if family not in ("sdxl", "sd3"):
        return miniature(family, root)
    target = root / f"{family}-two-widths"
    if not target.exists():
        parts = BUILDERS[family]()
        parts |= _with_another_width(family, parts)
        draw_weights(parts)
        if family == "sd3":  # published checkpoints of SD3 leave this projection out
            torch.nn.init.eye_(parts["text_encoder"][1].text_projection.weight)
        save_pipeline(parts, target)
    return target


@pytest.fixture
def narrow_flux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Diffusers' conversion of FLUX splits tensors at the width of the published models, 3072; here at 32."""
    entry = SINGLE_FILE_LOADABLE_CLASSES["FluxTransformer2DModel"]
    conversion = entry["checkpoint_mapping_fn"]
    constants = tuple(WIDTH if each == 3072 else each for each in conversion.__code__.co_consts)
    assert constants != conversion.__code__.co_consts
    code = conversion.__code__.replace(co_consts=constants)
    monkeypatch.setitem(entry, "checkpoint_mapping_fn", FunctionType(code, conversion.__globals__))


def _with_another_width(family: Family, parts: Parts) -> Parts:
    config = parts["text_encoder_2"][1].config
    config.update({"hidden_size": SECOND_WIDTH, "projection_dim": SECOND_WIDTH})
    changed: Parts = {"text_encoder_2": ("transformers", CLIPTextModelWithProjection(config))}
    both = TEXT_WIDTH + SECOND_WIDTH
    if family == "sdxl":
        widths = {"cross_attention_dim": both, "projection_class_embeddings_input_dim": 6 * 8 + SECOND_WIDTH}
        unet = UNet2DConditionModel.from_config({**parts["unet"][1].config, **widths})
        return changed | {"unet": ("diffusers", unet)}
    pooled = {"pooled_projection_dim": both}
    transformer = SD3Transformer2DModel.from_config({**parts["transformer"][1].config, **pooled})
    return changed | {"transformer": ("diffusers", transformer)}
