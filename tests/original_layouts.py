"""Diffusers' conversion of published checkpoints, backwards: components under the names of their makers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch

from tests.miniatures import Family

State: TypeAlias = Mapping[str, torch.Tensor]
Rules: TypeAlias = Sequence[tuple[str, str]]
"""Pattern -> replacement, all applied in this order. What follows a `#` is no name: the place of a piece
in a joined tensor, or `swap` where the halves stand the other way round."""

DENOISER = "model.diffusion_model."


def published(family: Family, component: str, state: State) -> tuple[str, dict[str, torch.Tensor]]:
    """What stands before its names, and its tensors under their published names."""
    match family, component:
        case _, "unet":
            return DENOISER, _renamed(state, _unet_rules(state))
        case "sd3", "transformer":
            return DENOISER, _renamed(state, _sd3_rules(state))
        case "flux", "transformer":
            return DENOISER, _renamed(state, _FLUX)
        case _, "vae":
            prefix = "vae." if family == "flux" else "first_stage_model."
            return prefix, _with_convolutions(_renamed(state, _VAE))
        case "sdxl", "text_encoder_2":
            return "conditioner.embedders.1.model.", _transposed(_renamed(state, _OPEN_CLIP))
    return _TEXT_ENCODERS[family, component], dict(state)


_TEXT_ENCODERS = {
    ("sd15", "text_encoder"): "cond_stage_model.transformer.",
    ("sdxl", "text_encoder"): "conditioner.embedders.0.transformer.",
    ("sd3", "text_encoder"): "text_encoders.clip_l.transformer.",
    ("sd3", "text_encoder_2"): "text_encoders.clip_g.transformer.",
    ("sd3", "text_encoder_3"): "text_encoders.t5xxl.transformer.",
    ("flux", "text_encoder"): "text_encoders.clip_l.transformer.",
    ("flux", "text_encoder_2"): "text_encoders.t5xxl.transformer.",
}


def _renamed(state: State, rules: Rules) -> dict[str, torch.Tensor]:
    pieces: dict[str, dict[str, torch.Tensor]] = {}
    for old, value in state.items():
        name = old
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        name, _, place = name.partition("#")
        if place == "swap":
            value = torch.cat(value.chunk(2)[::-1])
        pieces.setdefault(name, {})[place] = value
    return {name: torch.cat([found[place] for place in sorted(found)]) for name, found in pieces.items()}


_RESNET = [
    (rf"^(.*resnets\.\d+)\.{ours}\.", rf"\1.{theirs}.")
    for ours, theirs in {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }.items()
]


def _unet_rules(state: State) -> list[tuple[str, str]]:
    rules = [
        (r"^time_embedding\.linear_1", "time_embed.0"),
        (r"^time_embedding\.linear_2", "time_embed.2"),
        (r"^add_embedding\.linear_1", "label_emb.0.0"),
        (r"^add_embedding\.linear_2", "label_emb.0.2"),
        (r"^conv_in", "input_blocks.0.0"),
        (r"^conv_norm_out", "out.0"),
        (r"^conv_out", "out.2"),
        *_RESNET,
        (r"^mid_block\.resnets\.0", "middle_block.0"),
        (r"^mid_block\.attentions\.0", "middle_block.1"),
        (r"^mid_block\.resnets\.1", "middle_block.2"),
    ]
    layers, blocks = _count(state, r"down_blocks\.0\.resnets"), _count(state, "down_blocks")
    for block in range(blocks):
        first = block * (layers + 1)
        last = first + layers
        place = 2 if any(name.startswith(f"up_blocks.{block}.attentions") for name in state) else 1
        down, up = rf"^down_blocks\.{block}\.", rf"^up_blocks\.{block}\."
        rules += [
            (rf"{down}downsamplers\.0\.conv", f"input_blocks.{last + 1}.0.op"),
            (rf"{up}upsamplers\.0\.conv", f"output_blocks.{last}.{place}.conv"),
        ]
        for layer in range(layers + 1):
            for place, kind in enumerate(("resnets", "attentions")):
                rules += [
                    (rf"{down}{kind}\.{layer}\.", f"input_blocks.{first + layer + 1}.{place}."),
                    (rf"{up}{kind}\.{layer}\.", f"output_blocks.{first + layer}.{place}."),
                ]
    return rules


_VAE = [
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"attn_1\.group_norm", "attn_1.norm"),
    (r"attn_1\.to_([qkv])\.", r"attn_1.\1."),
    (r"attn_1\.to_out\.0", "attn_1.proj_out"),
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    *[(rf"up_blocks\.{block}\.resnets", f"up.{3 - block}.block") for block in range(4)],
    *[(rf"up_blocks\.{block}\.upsamplers\.0", f"up.{3 - block}.upsample") for block in range(4)],
]

_OPEN_CLIP = [
    (r"^text_projection\.weight", "text_projection"),
    (r"^text_model\.embeddings\.token_embedding", "token_embedding"),
    (r"^text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^text_model\.final_layer_norm", "ln_final"),
    (r"^text_model\.encoder\.layers", "transformer.resblocks"),
    (r"layer_norm(\d)", r"ln_\1"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
    (r"self_attn\.out_proj", "attn.out_proj"),
    *[(rf"self_attn\.{part}_proj\.(\w+)", rf"attn.in_proj_\1#{i}") for i, part in enumerate("qkv")],
]


def _count(state: State, before: str) -> int:
    """How many blocks are numbered behind these words."""
    return len({found[1] for name in state if (found := re.match(rf"{before}\.(\d+)\.", name))})


def _sd3_rules(state: State) -> list[tuple[str, str]]:
    last = _count(state, "transformer_blocks") - 1
    return [
        (r"^pos_embed\.pos_embed", "pos_embed"),
        (r"^pos_embed\.proj", "x_embedder.proj"),
        (r"^time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
        (r"^time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
        (r"^time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
        (r"^time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
        (r"^proj_out", "final_layer.linear"),
        (r"^norm_out\.linear\.(\w+)", r"final_layer.adaLN_modulation.1.\1#swap"),
        *[(rf"(attn2?)\.to_{part}\.(\w+)", rf"x_block.\1.qkv.\2#{i}") for i, part in enumerate("qkv")],
        *[
            (rf"attn\.add_{part}_proj\.(\w+)", rf"context_block.attn.qkv.\1#{i}")
            for i, part in enumerate("qkv")
        ],
        (r"(attn2?)\.norm_([qk])\.", r"x_block.\1.ln_\2."),
        (r"attn\.norm_added_([qk])\.", r"context_block.attn.ln_\1."),
        (r"(attn2?)\.to_out\.0", r"x_block.\1.proj"),
        (r"attn\.to_add_out", "context_block.attn.proj"),
        (r"norm1\.linear", "x_block.adaLN_modulation.1"),
        (rf"(blocks\.{last})\.norm1_context\.linear\.(\w+)", r"\1.context_block.adaLN_modulation.1.\2#swap"),
        (r"norm1_context\.linear", "context_block.adaLN_modulation.1"),
        (r"ff\.net\.0\.proj", "x_block.mlp.fc1"),
        (r"ff\.net\.2", "x_block.mlp.fc2"),
        (r"ff_context\.net\.0\.proj", "context_block.mlp.fc1"),
        (r"ff_context\.net\.2", "context_block.mlp.fc2"),
        (r"^transformer_blocks", "joint_blocks"),
    ]


_FLUX = [
    (r"^time_text_embed\.timestep_embedder\.", "time_in."),
    (r"^time_text_embed\.guidance_embedder\.", "guidance_in."),
    (r"^time_text_embed\.text_embedder\.", "vector_in."),
    (r"_in\.linear_1", "_in.in_layer"),
    (r"_in\.linear_2", "_in.out_layer"),
    (r"^context_embedder", "txt_in"),
    (r"^x_embedder", "img_in"),
    (r"^proj_out", "final_layer.linear"),
    (r"^norm_out\.linear\.(\w+)", r"final_layer.adaLN_modulation.1.\1#swap"),
    *[
        (rf"^(single_transformer_blocks\.\d+)\.{part}\.(\w+)", rf"\1.linear1.\2#{i}")
        for i, part in enumerate([r"attn\.to_q", r"attn\.to_k", r"attn\.to_v", "proj_mlp"])
    ],
    (r"^(single_transformer_blocks\.\d+)\.proj_out", r"\1.linear2"),
    (r"^(single_transformer_blocks\.\d+)\.norm\.linear", r"\1.modulation.lin"),
    (r"^(single_transformer_blocks\.\d+)\.attn\.norm_q\.weight", r"\1.norm.query_norm.scale"),
    (r"^(single_transformer_blocks\.\d+)\.attn\.norm_k\.weight", r"\1.norm.key_norm.scale"),
    (r"^single_transformer_blocks", "single_blocks"),
    *[(rf"attn\.to_{part}\.(\w+)", rf"img_attn.qkv.\1#{i}") for i, part in enumerate("qkv")],
    *[(rf"attn\.add_{part}_proj\.(\w+)", rf"txt_attn.qkv.\1#{i}") for i, part in enumerate("qkv")],
    (r"attn\.norm_q\.weight", "img_attn.norm.query_norm.scale"),
    (r"attn\.norm_k\.weight", "img_attn.norm.key_norm.scale"),
    (r"attn\.norm_added_q\.weight", "txt_attn.norm.query_norm.scale"),
    (r"attn\.norm_added_k\.weight", "txt_attn.norm.key_norm.scale"),
    (r"attn\.to_out\.0", "img_attn.proj"),
    (r"attn\.to_add_out", "txt_attn.proj"),
    (r"norm1\.linear", "img_mod.lin"),
    (r"norm1_context\.linear", "txt_mod.lin"),
    (r"ff\.net\.0\.proj", "img_mlp.0"),
    (r"ff\.net\.2", "img_mlp.2"),
    (r"ff_context\.net\.0\.proj", "txt_mlp.0"),
    (r"ff_context\.net\.2", "txt_mlp.2"),
    (r"^transformer_blocks", "double_blocks"),
]


def _with_convolutions(state: State) -> dict[str, torch.Tensor]:
    """The VAE's attention as 1x1 convolutions."""
    linear = re.compile(r".*attn_1\.(q|k|v|proj_out)\.weight")
    return {
        name: value[:, :, None, None].contiguous() if linear.fullmatch(name) else value
        for name, value in state.items()
    }


def _transposed(state: State) -> dict[str, torch.Tensor]:
    name = "text_projection"
    return {**state, name: state[name].T.contiguous()}
