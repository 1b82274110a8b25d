"""Families: which components a model has, by the names, order and shapes of Optimum's contract.

`family_of(folder)` reads configurations only. The contract is that of optimum-onnx 0.1.0, `OnnxConfig`
classes of its diffusers library, and holds for our graphs and for those it writes itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from export import draws, modules, parts
from export.components import ROWS, Axis, Component, Input
from export.errors import UnsupportedExportError
from export.parts import Timestep
from router.model_folder import ModelFolder


@dataclass(frozen=True)
class Family:
    """One model's family, with the components that this model has."""

    name: str
    """As Diffusers' own tables call it."""
    pipeline: str
    """Class of the source."""
    components: tuple[Component, ...]
    size_multiple: int
    """Pixels, of height and width."""
    min_side: int
    """Pixels."""
    own_size: tuple[int, int]
    """Height and width in pixels, unless told otherwise."""
    text_lengths: tuple[int, ...]
    """Tokens for each text encoder, as the pipeline calls it unless told otherwise."""
    t5_index: int | None = None
    """Which of `text_lengths` is T5's: the one that can be chosen."""
    row_buckets: tuple[int, ...] = (2, 8)
    """By default; a guided picture is two rows, except in FLUX."""
    max_side: int | None = None
    """Pixels, where positions are a table of limited size."""

    @property
    def has_unet(self) -> bool:
        """Optimum feeds UNets one timestep for all rows, transformers one for each."""
        return any(component.name == "unet" for component in self.components)


def family_of(source: Path, *, timestep: Timestep = "per-row") -> Family:
    """The family of a model folder. Raises `UnsupportedExportError` for an unknown one, `LoadError`.

    `timestep` is how a UNet takes it: [rows], or one scalar for all rows. Transformers take [rows] always.
    """
    model = ModelFolder(source, "source")
    pipeline = str(model.index.get("_class_name"))
    for name, (classes, build) in _FAMILIES.items():
        if pipeline in classes:
            _check_classes(model)
            return build(name, model, timestep)
    raise UnsupportedExportError(
        f"Source {source.name!r} is a {pipeline}, which has no export;"
        f" the known families are {', '.join(_FAMILIES)}."
    )


_EXPORTED = {
    "unet": ("UNet2DConditionModel",),
    "transformer": ("SD3Transformer2DModel", "FluxTransformer2DModel"),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "text_encoder_2": ("CLIPTextModelWithProjection", "T5EncoderModel"),
    "text_encoder_3": ("T5EncoderModel",),
}


def _check_classes(model: ModelFolder) -> None:
    for name, (_, kind) in model.components().items():
        if kind not in _EXPORTED.get(name, (kind,)):
            wanted = " or ".join(_EXPORTED[name])
            raise UnsupportedExportError(
                f"Source {model.folder.name!r} has {kind} as {name}, which has no export; use {wanted}."
            )


# --- the families

_OWN_LATENTS = 128
"""Height and width where the configuration says nothing, as FLUX's: what its pipeline takes."""


def _stable_diffusion(name: str, model: ModelFolder, timestep: Timestep) -> Family:
    components = (
        parts.clip(model, "text_encoder", 0),
        parts.unet(model, timestep),
        *parts.vae(model),
    )
    return _family(name, model, components, (parts.clip_length(model, "text_encoder"),))


def _stable_diffusion_xl(name: str, model: ModelFolder, timestep: Timestep) -> Family:
    if "text_encoder" not in model.components():
        raise UnsupportedExportError(
            f"Source {model.folder.name!r} is a refiner, which has no export; name a base model."
        )
    unet, pooled = model.config("unet"), model.config("text_encoder_2").get("projection_dim", 1280)
    ids = (unet["projection_class_embeddings_input_dim"] - pooled) // unet["addition_time_embed_dim"]
    added = (
        Input("text_embeds", (ROWS, pooled), draws.normal()),
        Input("time_ids", (ROWS, ids), draws.time_ids),
    )
    components = (
        parts.clip(model, "text_encoder", 0, hidden_states=True),
        parts.clip(model, "text_encoder_2", 1),
        parts.unet(model, timestep, added),
        # The published VAE makes NaN in float16; Diffusers upcasts it too.
        *parts.vae(model, float16_overflows=True),
    )
    lengths = (parts.clip_length(model, "text_encoder"), parts.clip_length(model, "text_encoder_2"))
    return _family(name, model, components, lengths)


def _stable_diffusion_3(name: str, model: ModelFolder, timestep: Timestep) -> Family:
    transformer = model.config("transformer")
    text: tuple[Axis, ...] = (ROWS, parts.clip_and_t5, transformer["joint_attention_dim"])
    inputs = (
        Input("hidden_states", parts.latents(model, transformer["in_channels"]), draws.normal()),
        Input("encoder_hidden_states", text, draws.normal()),
        Input("pooled_projections", (ROWS, transformer["pooled_projection_dim"]), draws.normal()),
        Input("timestep", (ROWS,), draws.uniform(0, parts.TIMESTEPS), torch.float32),
    )
    components = (
        parts.clip(model, "text_encoder", 0),
        parts.clip(model, "text_encoder_2", 1),
        # Often left out to save memory; its tokens are then zeros.
        *([parts.t5(model, "text_encoder_3", 2)] if "text_encoder_3" in model.components() else []),
        parts.denoiser("transformer", inputs, "out_hidden_states", modules.Sd3Transformer),
        *parts.vae(model),
    )
    lengths = (parts.clip_length(model, "text_encoder"), parts.clip_length(model, "text_encoder_2"), 256)
    longest = transformer.get("pos_embed_max_size", 96) * 2 * parts.cell(model)
    return _family(name, model, components, lengths, t5_index=2, max_side=longest)


def _flux(name: str, model: ModelFolder, timestep: Timestep) -> Family:
    transformer, patch = model.config("transformer"), 2 * parts.cell(model)
    patches, text = parts.patches(patch), parts.text(1)
    width = transformer["joint_attention_dim"]
    inputs: tuple[Input, ...] = (
        Input("hidden_states", (ROWS, patches, transformer["in_channels"]), draws.normal()),
        Input("encoder_hidden_states", (ROWS, text, width), draws.normal()),
        Input("pooled_projections", (ROWS, transformer["pooled_projection_dim"]), draws.normal()),
        Input("timestep", (ROWS,), draws.uniform(0, 1), torch.float32),
        Input("img_ids", (patches, 3), draws.image_positions(patch), torch.float32),
        Input("txt_ids", (text, 3), draws.zeros, torch.float32),
    )
    if transformer.get("guidance_embeds"):
        inputs += (Input("guidance", (ROWS,), draws.uniform(1, 7), torch.float32),)
    components = (
        parts.clip(model, "text_encoder", 0),
        parts.t5(model, "text_encoder_2", 1),
        parts.denoiser("transformer", inputs, "out_hidden_states", modules.FluxTransformer),
        # NVIDIA's TensorRT demonstration keeps it out of float16, too.
        *parts.vae(model, float16_overflows=True),
    )
    lengths = (parts.clip_length(model, "text_encoder"), 512)
    return _family(name, model, components, lengths, t5_index=1, row_buckets=(1, 4))


def _family(
    name: str,
    model: ModelFolder,
    components: tuple[Component, ...],
    text_lengths: tuple[int, ...],
    **settings: Any,
) -> Family:
    """With the sizes that follow from the configurations. Transformers join 2x2 latents to a patch."""
    cell, unet, transformer = parts.cell(model), model.config("unet"), model.config("transformer")
    multiple = cell if unet else 2 * cell
    own = (unet or transformer).get("sample_size") or _OWN_LATENTS
    height, width = own if isinstance(own, list) else (own, own)
    return Family(
        name,
        model.index["_class_name"],
        components,
        size_multiple=multiple,
        # A UNet halves its latents between blocks, and the last must keep one.
        min_side=multiple * 2 ** (len(unet.get("block_out_channels", [0])) - 1),
        own_size=(height * cell, width * cell),
        text_lengths=text_lengths,
        **settings,
    )


def _tasks_of(stem: str) -> tuple[str, ...]:
    return tuple(f"{stem}{task}Pipeline" for task in ("", "Img2Img", "Inpaint"))


_FAMILIES: dict[str, tuple[tuple[str, ...], Callable[[str, ModelFolder, Timestep], Family]]] = {
    "stable-diffusion": (_tasks_of("StableDiffusion"), _stable_diffusion),
    "stable-diffusion-xl": (_tasks_of("StableDiffusionXL"), _stable_diffusion_xl),
    "stable-diffusion-3": (_tasks_of("StableDiffusion3"), _stable_diffusion_3),
    "flux": (_tasks_of("Flux"), _flux),
}
