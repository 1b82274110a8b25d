"""Modules over sessions: what stands in a Diffusers pipeline where torch modules would stand.

Each has the call of the class that it stands for. Between the graphs a pipeline computes in float32,
whatever the graphs take, so that schedulers lose nothing to a half-precision export.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput, Transformer2DModelOutput
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPTextModelOutput

from backends._gather import BATCHED
from backends._sessions import Sessions

_TEXT_OUTPUTS: Mapping[str, Any] = {
    "text_embeds": CLIPTextModelOutput,
    "pooler_output": BaseModelOutputWithPooling,
    "last_hidden_state": BaseModelOutput,
}
"""The output that tells text encoders apart -> what the library's own encoder returns."""


class SessionModule(torch.nn.Module):
    """A module without weights of its own."""

    dtype = torch.float32
    batched_arguments: frozenset[str] = frozenset()

    def __init__(self, config: Mapping[str, Any], sessions: Sessions, device: torch.device) -> None:
        super().__init__()
        self.config = FrozenDict(config)  # type: ignore[no-untyped-call]
        self.device = device
        self.sessions = sessions


class SessionTextEncoder(SessionModule):
    """CLIP with or without projection, and T5."""

    batched_arguments = BATCHED["CLIPTextModel"]

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> Any:
        _refuse(attention_mask=attention_mask)
        outputs: dict[str, Any] = self.sessions.run({"input_ids": input_ids})
        hidden = [outputs.pop(name) for name in list(outputs) if name.startswith("hidden_states.")]
        kind = next(kind for name, kind in _TEXT_OUTPUTS.items() if name in outputs)
        return kind(**outputs, hidden_states=tuple(hidden) or None)


class SessionUNet(SessionModule):
    """UNet2DConditionModel."""

    def __init__(self, config: Mapping[str, Any], sessions: Sessions, device: torch.device) -> None:
        super().__init__(_with_defaults(config), sessions, device)
        self._scalar_timestep = not sessions.inputs["timestep"].shape
        self.batched_arguments = BATCHED["UNet2DConditionModel"] - (
            {"timestep"} if self._scalar_timestep else set()
        )
        features = config.get("projection_class_embeddings_input_dim")
        self.add_embedding = SimpleNamespace(linear_1=SimpleNamespace(in_features=features))

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        *,
        timestep_cond: torch.Tensor | None = None,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        added_cond_kwargs: Mapping[str, torch.Tensor] | None = None,
        return_dict: bool = True,
    ) -> Any:
        _refuse(cross_attention_kwargs=cross_attention_kwargs)
        times = torch.as_tensor(timestep, device=sample.device)
        feeds = {
            "sample": sample,
            "timestep": times.reshape(-1)[0] if self._scalar_timestep else times.expand(len(sample)),
            "encoder_hidden_states": encoder_hidden_states,
            "timestep_cond": timestep_cond,
            **(added_cond_kwargs or {}),
        }
        return _denoised(self.sessions.run(feeds), return_dict)


class SessionTransformer(SessionModule):
    """SD3Transformer2DModel and FluxTransformer2DModel: their arguments are their graphs' inputs."""

    def __init__(self, config: Mapping[str, Any], sessions: Sessions, device: torch.device) -> None:
        super().__init__(_with_defaults(config), sessions, device)
        self.batched_arguments = BATCHED[config["_class_name"]]

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        pooled_projections: torch.Tensor,
        timestep: torch.Tensor,
        img_ids: torch.Tensor | None = None,
        txt_ids: torch.Tensor | None = None,
        guidance: torch.Tensor | None = None,
        joint_attention_kwargs: Mapping[str, Any] | None = None,
        return_dict: bool = True,
    ) -> Any:
        _refuse(joint_attention_kwargs=joint_attention_kwargs)
        feeds = {
            "hidden_states": hidden_states,
            "encoder_hidden_states": encoder_hidden_states,
            "pooled_projections": pooled_projections,
            "timestep": timestep,
            "img_ids": img_ids,
            "txt_ids": txt_ids,
            "guidance": guidance,
        }
        return _denoised(self.sessions.run(feeds), return_dict)

    def cache_context(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Where Diffusers keeps caches of steps apart; a graph has none."""
        return contextlib.nullcontext()


class SessionVae(SessionModule):
    """AutoencoderKL, its two halves as graphs of their own. Without an encoder it only decodes."""

    batched_arguments = BATCHED["AutoencoderKL"]

    def __init__(
        self, config: Mapping[str, Any], decoder: Sessions, encoder: Sessions | None, device: torch.device
    ) -> None:
        # A graph computes in the dtype that it was exported for: there is nothing to upcast.
        super().__init__({**_with_defaults(config), "force_upcast": False}, decoder, device)
        self._encoder = encoder

    def decode(
        self, z: torch.Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> Any:
        sample = self.sessions.run({"latent_sample": z})["sample"]
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def encode(self, x: torch.Tensor, return_dict: bool = True) -> Any:
        if self._encoder is None:
            raise RuntimeError("the export has no vae_encoder")
        parameters = self._encoder.run({"sample": x})["latent_parameters"]
        distribution = DiagonalGaussianDistribution(parameters)
        return AutoencoderKLOutput(latent_dist=distribution) if return_dict else (distribution,)


def _with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with what its class has as defaults where the file says nothing."""
    kind = getattr(diffusers, config["_class_name"])
    parameters = inspect.signature(kind.__init__).parameters.values()
    known = {each.name: each.default for each in parameters if each.default is not each.empty}
    return {**known, **config}


def _denoised(outputs: Mapping[str, torch.Tensor], return_dict: bool) -> Any:
    sample = next(iter(outputs.values()))
    return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)


def _refuse(**arguments: Any) -> None:
    """What no graph was exported with must not be left out in silence."""
    for name, value in arguments.items():
        if value is not None and value != {}:
            raise RuntimeError(f"an exported graph takes no {name}")
