"""The modules that become graphs: `forward` takes a graph's inputs, returns its outputs, as Optimum does.

Each is a thin shell over the pipeline's own module; what it returns is what the export is compared with.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Outputs: TypeAlias = tuple[Tensor, ...]


class ClipText(nn.Module):
    """CLIPTextModel: last hidden state, pooled output and, for SDXL, all hidden states."""

    def __init__(self, encoder: nn.Module, *, hidden_states: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden_states = hidden_states

    def forward(self, input_ids: Tensor) -> Outputs:
        encoded = self.encoder(input_ids, output_hidden_states=self.hidden_states)
        every = encoded.hidden_states if self.hidden_states else ()
        return (encoded.last_hidden_state, encoded.pooler_output, *every)


class ClipTextWithProjection(nn.Module):
    """CLIPTextModelWithProjection: projected embedding, last and all hidden states."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor) -> Outputs:
        encoded = self.encoder(input_ids, output_hidden_states=True)
        return (encoded.text_embeds, encoded.last_hidden_state, *encoded.hidden_states)


class T5Text(nn.Module):
    """T5EncoderModel: last hidden state."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor) -> Outputs:
        return (self.encoder(input_ids).last_hidden_state,)


class UNet(nn.Module):
    """UNet2DConditionModel of Stable Diffusion and, with `text_embeds` and `time_ids`, of SDXL."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        text_embeds: Tensor | None = None,
        time_ids: Tensor | None = None,
        timestep_cond: Tensor | None = None,
    ) -> Outputs:
        added = None
        if text_embeds is not None:
            # The UNet joins them to float32 sinusoids: PyTorch promotes both sides, ONNX does not.
            added = {"text_embeds": text_embeds.float(), "time_ids": time_ids}
        predicted: Tensor = self.unet(
            sample,
            timestep,
            encoder_hidden_states,
            timestep_cond=timestep_cond,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return (predicted,)


class Sd3Transformer(nn.Module):
    """SD3Transformer2DModel."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
    ) -> Outputs:
        predicted: Tensor = self.transformer(
            hidden_states, encoder_hidden_states, pooled_projections, timestep, return_dict=False
        )[0]
        return (predicted,)


class FluxTransformer(nn.Module):
    """FluxTransformer2DModel; `guidance` where it was distilled with one."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        img_ids: Tensor,
        txt_ids: Tensor,
        guidance: Tensor | None = None,
    ) -> Outputs:
        predicted: Tensor = self.transformer(
            hidden_states=hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
            timestep=timestep,
            img_ids=img_ids,
            txt_ids=txt_ids,
            guidance=guidance,
            return_dict=False,
        )[0]
        return (predicted,)


class VaeDecoder(nn.Module):
    """AutoencoderKL from unscaled latents to a picture in -1..1."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample: Tensor) -> Outputs:
        decoded: Tensor = self.vae.decode(latent_sample, return_dict=False)[0]
        return (decoded,)


class VaeEncoder(nn.Module):
    """AutoencoderKL from a picture in -1..1 to mean and log variance of its latents, side by side."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, sample: Tensor) -> Outputs:
        parameters: Tensor = self.vae.encode(sample, return_dict=False)[0].parameters
        return (parameters,)


def ready(module: nn.Module) -> nn.Module:
    """The module as it is exported and compared: for inference, without gradients."""
    return module.eval().requires_grad_(False)


DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
