"""Random LoRAs for the miniatures, saved by Diffusers itself, and the same in kohya's layout."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from tests.miniatures import Family, miniature

RANK, ALPHA = 4, 6.0
"""Not 1 together, so that a forgotten alpha is seen."""
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT = ["q_proj", "v_proj", "out_proj"]

Layers = dict[str, dict[str, torch.Tensor]]
"""Component -> its matrices, by the names of peft."""


def save_lora(
    folder: Path, name: str, family: Family, miniatures: Path, *, seed: int = 0, text: bool = True
) -> Path:
    """`folder/name.safetensors`, by `save_lora_weights` of the family's pipeline."""
    pipeline = _pipeline(miniature(family, miniatures))
    layers, metadata = random_layers(pipeline, seed, text=text)
    type(pipeline).save_lora_weights(
        folder,
        weight_name=f"{name}.safetensors",
        **{f"{component}_lora_layers": tensors for component, tensors in layers.items()},
        **{f"{component}_lora_adapter_metadata": said for component, said in metadata.items()},
    )
    return folder / f"{name}.safetensors"


def save_kohya(folder: Path, name: str, family: Family, miniatures: Path, *, seed: int = 0) -> Path:
    """The same, as kohya's trainer writes it: `_` for `.`, and an alpha beside each pair.

    For SDXL the layers have the names of the published checkpoint.
    """
    layers, _ = random_layers(_pipeline(miniature(family, miniatures)), seed, text=True)
    several = "text_encoder_2" in layers
    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te1" if several else "lora_te"}
    prefixes["text_encoder_2"] = "lora_te2"
    tensors: dict[str, torch.Tensor] = {}
    for component, pairs in layers.items():
        for key, tensor in pairs.items():
            module, role = key.removesuffix(".weight").rsplit(".", 1)
            module = f"text_model.{module}" if component != "unet" and "text_model" not in module else module
            layer = module.replace(".", "_")
            start = f"{prefixes[component]}_{_published(layer) if several else layer}"
            tensors[f"{start}.{'lora_down' if role == 'lora_A' else 'lora_up'}.weight"] = tensor
            tensors[f"{start}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def random_layers(pipeline: Any, seed: int, *, text: bool) -> tuple[Layers, dict[str, Any]]:
    """As strong as the layers themselves, so that each LoRA is seen in the picture."""
    denoiser = "unet" if hasattr(pipeline, "unet") else "transformer"
    names = [denoiser, *[name for name in pipeline._lora_loadable_modules if text and name != denoiser]]
    layers, metadata = {}, {}
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        module = getattr(pipeline, name)
        config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=ATTENTION if name == denoiser else TEXT)
        module.add_adapter(config, adapter_name="random")
        layers[name] = {
            key: torch.randn(tensor.shape, generator=generator) * tensor.shape[1] ** -0.5
            for key, tensor in sorted(get_peft_model_state_dict(module, adapter_name="random").items())
        }
        metadata[name] = module.peft_config["random"].to_dict()
        (module.delete_adapters if name == denoiser else module.delete_adapter)("random")
    return layers, metadata


def _published(module: str) -> str:
    """Of a UNet with one layer in each block."""
    found = re.fullmatch(r"(down|up)_blocks_(\d)_attentions_(\d)_(.*)", module)
    if found is None:
        return module.replace("mid_block_attentions_0", "middle_block_1")
    kind, block, layer, rest = found.groups()
    number = 2 * int(block) + int(layer) + (kind == "down")
    return f"{'input' if kind == 'down' else 'output'}_blocks_{number}_1_{rest}"


@cache
def _pipeline(folder: Path) -> Any:
    """One that is only looked at."""
    return DiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
