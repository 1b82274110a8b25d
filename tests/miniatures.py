"""Tiny random-weight pipelines of four families, saved in the layout that transformers 4 and 5 both read.

`miniature("sdxl", folder)` builds `folder/sdxl` once and returns it. A picture of 64x64 takes a fraction
of a second on one core. All weights are drawn here by one rule, so that library versions do not matter.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from tests.pipeline_layout import Parts, save_pipeline

Family: TypeAlias = Literal["sd15", "sdxl", "sd3", "flux"]
FAMILIES: tuple[Family, ...] = ("sd15", "sdxl", "sd3", "flux")

SIDE = 64
"""Height and width of the default picture; 8x8 latents. FLUX ignores it: name the size there."""

TEXT_WIDTH = 32
CLIP_START, CLIP_END, CLIP_VOCABULARY = 673, 674, 675
T5_VOCABULARY = 149
WEIGHT_SEED = 20


def miniature(family: Family, folder: Path, *, guidance_embeds: bool = True) -> Path:
    """The folder of a tiny pipeline under `folder`; built on the first call, found on later ones.

    `guidance_embeds=False` makes FLUX what its schnell variant is; the others ignore it.
    """
    name = "flux-schnell" if family == "flux" and not guidance_embeds else family
    target = folder / name
    if not (target / "model_index.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            parts = BUILDERS[name]()
            draw_weights(parts)
            save_pipeline(parts, Path(unfinished) / name)
            (Path(unfinished) / name).rename(target)
    return target


# --- what the families are made of ----------------------------------------------------------------


def _sd15() -> Parts:
    return {
        "_class_name": "StableDiffusionPipeline",
        "requires_safety_checker": False,
        "feature_extractor": (None, None),
        "image_encoder": (None, None),
        "safety_checker": (None, None),
        "scheduler": ("diffusers", DDIMScheduler(**_LATENT_NOISE, clip_sample=False, set_alpha_to_one=False)),
        "text_encoder": ("transformers", _clip(CLIPTextModel, "quick_gelu")),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "unet": ("diffusers", _unet(cross_attention_dim=TEXT_WIDTH)),
        "vae": ("diffusers", _vae(latent_channels=4, scaling_factor=0.18215)),
    }


def _sdxl() -> Parts:
    unet = _unet(
        cross_attention_dim=2 * TEXT_WIDTH,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + TEXT_WIDTH,
    )
    return {
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": True,
        "feature_extractor": (None, None),
        "image_encoder": (None, None),
        "scheduler": ("diffusers", EulerDiscreteScheduler(**_LATENT_NOISE, timestep_spacing="leading")),
        "text_encoder": ("transformers", _clip(CLIPTextModel, "quick_gelu")),
        "text_encoder_2": ("transformers", _clip(CLIPTextModelWithProjection, "gelu")),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "tokenizer_2": ("transformers", "CLIPTokenizer padded with !"),
        "unet": ("diffusers", unet),
        "vae": ("diffusers", _vae(latent_channels=4, scaling_factor=0.13025)),
    }


def _sd3() -> Parts:
    transformer = SD3Transformer2DModel(
        sample_size=SIDE // 8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=24,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return {
        "_class_name": "StableDiffusion3Pipeline",
        "feature_extractor": (None, None),
        "image_encoder": (None, None),
        "scheduler": ("diffusers", FlowMatchEulerDiscreteScheduler(shift=3.0)),
        "text_encoder": ("transformers", _clip(CLIPTextModelWithProjection, "quick_gelu")),
        "text_encoder_2": ("transformers", _clip(CLIPTextModelWithProjection, "gelu")),
        "text_encoder_3": ("transformers", _t5(width=2 * TEXT_WIDTH)),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "tokenizer_2": ("transformers", "CLIPTokenizer padded with !"),
        "tokenizer_3": ("transformers", "T5TokenizerFast"),
        "transformer": ("diffusers", transformer),
        "vae": ("diffusers", _vae(latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609)),
    }


def _flux(guidance_embeds: bool = True) -> Parts:
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    )
    # What the published dev and schnell schedulers say.
    shift = {"shift": 3.0, "use_dynamic_shifting": True} if guidance_embeds else {"shift": 1.0}
    return {
        "_class_name": "FluxPipeline",
        "feature_extractor": (None, None),
        "image_encoder": (None, None),
        "scheduler": ("diffusers", FlowMatchEulerDiscreteScheduler(**shift)),
        "text_encoder": ("transformers", _clip(CLIPTextModel, "quick_gelu")),
        "text_encoder_2": ("transformers", _t5(width=TEXT_WIDTH)),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "tokenizer_2": ("transformers", "T5TokenizerFast"),
        "transformer": ("diffusers", transformer),
        "vae": ("diffusers", _vae(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159)),
    }


BUILDERS: dict[str, Callable[[], Parts]] = {
    "sd15": _sd15,
    "sdxl": _sdxl,
    "sd3": _sd3,
    "flux": _flux,
    "flux-schnell": lambda: _flux(guidance_embeds=False),
}

_LATENT_NOISE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def _unet(**settings: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIDE // 8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        norm_num_groups=8,
        **settings,
    )


def _vae(*, latent_channels: int, **settings: Any) -> AutoencoderKL:
    quantised = latent_channels == 4
    return AutoencoderKL(
        sample_size=SIDE,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=latent_channels,
        use_quant_conv=quantised,
        use_post_quant_conv=quantised,
        **settings,
    )


def _clip(encoder: type[torch.nn.Module], activation: str) -> torch.nn.Module:
    config = CLIPTextConfig(
        vocab_size=CLIP_VOCABULARY,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=TEXT_WIDTH,
        hidden_act=activation,
        bos_token_id=CLIP_START,
        eos_token_id=CLIP_END,
        pad_token_id=CLIP_END,
    )
    return encoder(config)


def _t5(*, width: int) -> torch.nn.Module:
    config = T5Config(
        vocab_size=T5_VOCABULARY,
        d_model=width,
        d_kv=16,
        d_ff=2 * width,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    encoder: torch.nn.Module = T5EncoderModel(config)
    return encoder


def draw_weights(parts: Parts) -> None:
    """Unit-variance weights throughout, so that prompt, seed and steps all reach the picture."""
    generator = torch.Generator().manual_seed(WEIGHT_SEED)
    modules = [part[1] for part in parts.values() if isinstance(part, tuple)]
    for module in modules:
        if isinstance(module, torch.nn.Module):
            for name, weight in sorted(module.named_parameters()):
                _draw(name, weight, generator)


def _draw(name: str, weight: torch.Tensor, generator: torch.Generator) -> None:
    noise = torch.randn(weight.shape, generator=generator)
    with torch.no_grad():
        if weight.ndim < 2:
            weight.copy_(1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise)
        else:
            weight.copy_(noise * weight[0].numel() ** -0.5)
