"""A model large enough to be bound by arithmetic: Stable Diffusion 1.5's topology, 78 million parameters.

python mid_model.py FOLDER      # weights as the library draws them, seed 0; pictures of 256x256
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.miniatures import CLIP_END, CLIP_START, CLIP_VOCABULARY
from tests.pipeline_layout import save_pipeline

SIDE = 256
TEXT_WIDTH = 256


def build(folder: Path) -> None:
    """Write the pipeline into the new `folder`."""
    torch.manual_seed(0)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    parts = {
        "_class_name": "StableDiffusionPipeline",
        "requires_safety_checker": False,
        "feature_extractor": (None, None),
        "image_encoder": (None, None),
        "safety_checker": (None, None),
        "scheduler": ("diffusers", scheduler),
        "text_encoder": ("transformers", _text_encoder()),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "unet": ("diffusers", _unet()),
        "vae": ("diffusers", _vae()),
    }
    save_pipeline(parts, folder)


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIDE // 8,
        block_out_channels=(96, 192, 384, 384),
        layers_per_block=2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=SIDE,
        block_out_channels=(32, 64, 96, 96),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
    )


def _text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=CLIP_VOCABULARY,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=6,
            num_attention_heads=4,
            bos_token_id=CLIP_START,
            eos_token_id=CLIP_END,
            pad_token_id=CLIP_END,
        )
    )


if __name__ == "__main__":
    build(Path(sys.argv[1]))
