"""The folder of a trained shapes model, in the layout that transformers 4 and 5 both read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel

TEXT_PREFIX = "text_model."


def save_model(folder: Path, like: Path, *, vae: Any, text_encoder: CLIPTextModel, unet: Any) -> None:
    """Writes a pipeline folder in float16; what is not trained is copied from the folder `like`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(like / "model_index.json", folder)
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(like / part, folder / part, dirs_exist_ok=True)
    for name, module in (("vae", vae), ("unet", unet)):
        module.save_config(folder / name)
        _save_weights(module.state_dict(), folder / name / "diffusion_pytorch_model.safetensors")
    _save_text_encoder(text_encoder, folder / "text_encoder")


def _save_text_encoder(encoder: CLIPTextModel, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    # transformers 5 writes no prefix, and 4 reads no weight without it.
    named = encoder.state_dict().items()
    weights = {TEXT_PREFIX + key.removeprefix(TEXT_PREFIX): weight for key, weight in named}
    _save_weights(weights, folder / "model.safetensors")
    # The dtype to load them in, which transformers 5 obeys: the same as the rest is loaded in.
    settings = encoder.config.to_diff_dict() | {"architectures": ["CLIPTextModel"], "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _save_weights(weights: dict[str, Tensor], file: Path) -> None:
    floats = {key: value for key, value in weights.items() if value.is_floating_point()}
    save_file(
        {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in floats.items()},
        file,
        metadata={"format": "pt"},
    )
