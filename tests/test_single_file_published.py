"""Checkpoints of the published sizes: their headers alone, behind which nothing is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from backends._single_file import faults
from router.single_file import SingleFile
from tests.headers import checkpoint
from tests.miniatures import Family
from tests.original_layouts import published

_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}
_LATENTS_OF_16 = {**_VAE, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}

MODELS: dict[str, tuple[Family, str, dict[str, tuple[str, dict[str, Any]]], int | None]] = {
    "Stable Diffusion 1.5": (
        "sd15",
        "StableDiffusionPipeline",
        {"unet": ("UNet2DConditionModel", {"cross_attention_dim": 768}), "vae": ("AutoencoderKL", _VAE)},
        859_520_964,
    ),
    "Stable Diffusion XL": (
        "sdxl",
        "StableDiffusionXLPipeline",
        {
            "unet": (
                "UNet2DConditionModel",
                {
                    "cross_attention_dim": 2048,
                    "block_out_channels": [320, 640, 1280],
                    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                    "transformer_layers_per_block": [1, 2, 10],
                    "attention_head_dim": [5, 10, 20],
                    "use_linear_projection": True,
                    "addition_embed_type": "text_time",
                    "addition_time_embed_dim": 256,
                    "projection_class_embeddings_input_dim": 2816,
                },
            ),
            "vae": ("AutoencoderKL", _VAE),
        },
        2_567_463_684,
    ),
    "Stable Diffusion 3.5 medium": (
        "sd3",
        "StableDiffusion3Pipeline",
        {
            "transformer": (
                "SD3Transformer2DModel",
                {
                    "num_layers": 24,
                    "num_attention_heads": 24,
                    "caption_projection_dim": 1536,
                    "pos_embed_max_size": 384,
                    "dual_attention_layers": list(range(13)),
                    "qk_norm": "rms_norm",
                },
            ),
            "vae": ("AutoencoderKL", _LATENTS_OF_16),
        },
        None,
    ),
    "FLUX.1 dev": (
        "flux",
        "FluxPipeline",
        {
            "transformer": ("FluxTransformer2DModel", {"guidance_embeds": True}),
            "vae": ("AutoencoderKL", _LATENTS_OF_16),
        },
        11_901_408_320,
    ),
}
"""Name -> family, pipeline class, components with what tells their configuration from Diffusers' own
defaults, and the number of the denoiser's weights where it is known."""


def write(root: Path, name: str) -> Path:
    """The checkpoint, its weights a hole, and its configurations beside it."""
    family, pipeline, components, _ = MODELS[name]
    folder = root / "model"
    index: dict[str, Any] = {"_class_name": pipeline}
    shapes: dict[str, tuple[int, ...]] = {}
    for component, (kind, config) in components.items():
        with torch.device("meta"):
            module = getattr(diffusers, kind).from_config(config)
            prefix, renamed = published(family, component, module.state_dict())
        module.save_config(folder / component)
        index[component] = ["diffusers", kind]
        shapes |= {prefix + key: tuple(value.shape) for key, value in renamed.items()}
    (folder / "model_index.json").write_text(json.dumps(index))
    return checkpoint(root / "model.safetensors", shapes)


@pytest.mark.parametrize("name", MODELS)
def test_the_published_models_are_recognised_and_converted(name: str, tmp_path: Path) -> None:
    model = SingleFile(write(tmp_path, name), "photo")
    model.check()
    assert list(faults(model)) == []
    assert name.startswith(model.checkpoint.layout.title)
    _, _, (denoiser, _), weights = MODELS[name]
    held = sum(tensor.elements for tensor in model.tensors(denoiser).values())
    assert weights in (None, held)


def test_a_narrower_block_is_said_with_both_shapes(tmp_path: Path) -> None:
    file = write(tmp_path, "Stable Diffusion 1.5")
    config = tmp_path / "model" / "unet" / "config.json"
    config.write_text(config.read_text().replace("1280", "1024"))
    first, *_ = faults(SingleFile(file, "photo"))
    assert "of 'unet' in shape [" in first
    assert "and unet/config.json makes [" in first
