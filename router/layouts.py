"""Layouts: where a family's components lie in a checkpoint as its makers publish it, and what shapes tell.

Read off the published files of each family, and off what Diffusers' `from_single_file` converts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DENOISER = "model.diffusion_model."
"""Before the denoiser's tensors. Files of SD3 and FLUX that hold nothing else may leave it out."""


@dataclass(frozen=True, slots=True)
class Part:
    """One component in a checkpoint."""

    prefixes: tuple[str, ...]
    """Its tensors' names begin with one of these."""
    axes: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Key of its configuration -> end of a tensor's name, and the axis that has this size."""
    blocks: Mapping[str, str] = field(default_factory=dict)
    """Key of its configuration -> what stands before the number in the names of its blocks."""
    switches: Mapping[str, str] = field(default_factory=dict)
    """Key of its configuration -> what begins the names of tensors that are there where it is true."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a family's checkpoints are like."""

    title: str
    pipelines: tuple[str, ...]
    """Diffusers' classes that its models may have."""
    parts: Mapping[str, Part]
    """Component -> where it lies. The first is the denoiser."""


_VAE = Part(("first_stage_model.", "vae."), {"latent_channels": ("decoder.conv_in.weight", 1)})
_UNET = Part(
    (DENOISER,),
    {
        "in_channels": ("input_blocks.0.0.weight", 1),
        "cross_attention_dim": (".attn2.to_k.weight", 1),
        "projection_class_embeddings_input_dim": ("label_emb.0.0.weight", 1),
    },
)
_T5 = {"vocab_size": ("shared.weight", 0), "d_model": ("shared.weight", 1)}


def _clip(prefix: str, position: str = "position_embedding.weight", block: str = "layers") -> Part:
    axes = {"vocab_size": ("token_embedding.weight", 0), "hidden_size": (position, 1)}
    return Part((prefix,), axes, {"num_hidden_layers": block})


def _t5(prefix: str) -> Part:
    return Part((prefix,), _T5, {"num_layers": "block"})


LAYOUTS: dict[str, Layout] = {
    "stable-diffusion": Layout(
        "Stable Diffusion 1.5",
        ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
        {"unet": _UNET, "vae": _VAE, "text_encoder": _clip("cond_stage_model.transformer.")},
    ),
    "stable-diffusion-xl": Layout(
        "Stable Diffusion XL",
        ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"),
        {
            "unet": _UNET,
            "vae": _VAE,
            "text_encoder": _clip("conditioner.embedders.0.transformer."),
            "text_encoder_2": _clip("conditioner.embedders.1.model.", "positional_embedding", "resblocks"),
        },
    ),
    "stable-diffusion-3": Layout(
        "Stable Diffusion 3",
        ("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"),
        {
            "transformer": Part(
                (DENOISER,),
                {
                    "in_channels": ("x_embedder.proj.weight", 1),
                    "joint_attention_dim": ("context_embedder.weight", 1),
                    "pooled_projection_dim": ("y_embedder.mlp.0.weight", 1),
                },
                {"num_layers": "joint_blocks"},
            ),
            "vae": _VAE,
            "text_encoder": _clip("text_encoders.clip_l.transformer."),
            "text_encoder_2": _clip("text_encoders.clip_g.transformer."),
            "text_encoder_3": _t5("text_encoders.t5xxl.transformer."),
        },
    ),
    "flux": Layout(
        "FLUX.1",
        ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"),
        {
            "transformer": Part(
                (DENOISER,),
                {
                    "in_channels": ("img_in.weight", 1),
                    "joint_attention_dim": ("txt_in.weight", 1),
                    "pooled_projection_dim": ("vector_in.in_layer.weight", 1),
                },
                {"num_layers": "double_blocks", "num_single_layers": "single_blocks"},
                {"guidance_embeds": "guidance_in."},
            ),
            "vae": _VAE,
            "text_encoder": _clip("text_encoders.clip_l.transformer."),
            "text_encoder_2": _t5("text_encoders.t5xxl.transformer."),
        },
    ),
}
"""Diffusers' name of the family -> its layout."""
