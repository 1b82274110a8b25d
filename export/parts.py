"""What the families are put together from: text encoders, the UNet's inputs, the VAE, and lengths of axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import torch

from export import modules
from export.components import ROWS, Axis, Component, Input, Shell
from export.draws import clip_tokens, normal, t5_tokens, uniform
from router.model_folder import ModelFolder
from router.types import ShapeProfile

TIMESTEPS: Final = 1000
"""Of training, in all four families."""

Timestep: TypeAlias = Literal["per-row", "scalar"]


def clip(model: ModelFolder, name: str, index: int, *, hidden_states: bool = False) -> Component:
    config = model.config(name)
    projects = model.components()[name][1] == "CLIPTextModelWithProjection"
    every = tuple(f"hidden_states.{layer}" for layer in range(config.get("num_hidden_layers", 12) + 1))
    named = ("text_embeds", "last_hidden_state") if projects else ("last_hidden_state", "pooler_output")
    outputs = (*named, *every) if projects or hidden_states else named

    def shell(encoder: Any) -> torch.nn.Module:
        if projects:
            return modules.ClipTextWithProjection(encoder)
        return modules.ClipText(encoder, hidden_states=hidden_states)

    tokens = Input("input_ids", (ROWS, text(index)), clip_tokens(config), torch.int64)
    return Component(name, name, "one", (tokens,), outputs, shell)


def t5(model: ModelFolder, name: str, index: int) -> Component:
    tokens = Input("input_ids", (ROWS, text(index)), t5_tokens(model.config(name)), torch.int64)
    return Component(name, name, "one", (tokens,), ("last_hidden_state",), modules.T5Text)


def denoiser(name: str, inputs: tuple[Input, ...], output: str, shell: Shell) -> Component:
    return Component(name, name, "bucket", inputs, (output,), shell)


def unet(model: ModelFolder, timestep: Timestep, added: tuple[Input, ...] = ()) -> Component:
    config = model.config("unet")
    text_width, guidance_width = config.get("cross_attention_dim", 1280), config.get("time_cond_proj_dim")
    inputs: tuple[Input, ...] = (
        Input("sample", latents(model, config.get("in_channels", 4)), normal()),
        Input("timestep", (ROWS,) if timestep == "per-row" else (), uniform(0, TIMESTEPS), torch.float32),
        Input("encoder_hidden_states", (ROWS, text(0), text_width), normal()),
        *added,
    )
    if guidance_width:  # distilled with a guidance of its own: latent consistency models
        inputs += (Input("timestep_cond", (ROWS, guidance_width), normal()),)
    return denoiser("unet", inputs, "out_sample", modules.UNet)


def vae(model: ModelFolder, *, float16_overflows: bool = False) -> tuple[Component, Component]:
    config = model.config("vae")
    spread = normal(1 / config.get("scaling_factor", 0.18215), config.get("shift_factor") or 0.0)
    decoded = Input("latent_sample", latents(model, config.get("latent_channels", 4)), spread)
    picture = Input("sample", (ROWS, 3, height, width), uniform(-1, 1))

    def half(name: str, taken: Input, given: str, shell: Shell) -> Component:
        return Component(name, "vae", "one", (taken,), (given,), shell, float16_overflows)

    return (
        half("vae_decoder", decoded, "sample", modules.VaeDecoder),
        half("vae_encoder", picture, "latent_parameters", modules.VaeEncoder),
    )


# --- lengths of axes


def cell(model: ModelFolder) -> int:
    """Pixels to a latent, along one side."""
    return int(2 ** (len(model.config("vae").get("block_out_channels", [0] * 4)) - 1))


def latents(model: ModelFolder, channels: int) -> tuple[Axis, ...]:
    side = cell(model)
    return ROWS, channels, lambda profile: profile.height // side, lambda profile: profile.width // side


def height(profile: ShapeProfile) -> int:
    return profile.height


def width(profile: ShapeProfile) -> int:
    return profile.width


def patches(side: int) -> Callable[[ShapeProfile], int]:
    return lambda profile: (profile.height // side) * (profile.width // side)


def text(index: int) -> Callable[[ShapeProfile], int]:
    return lambda profile: profile.text_lengths[index]


def clip_and_t5(profile: ShapeProfile) -> int:
    """SD3 puts the two one after the other."""
    return profile.text_lengths[0] + profile.text_lengths[2]


def clip_length(model: ModelFolder, name: str) -> int:
    return int(model.config(name).get("max_position_embeddings", 77))
