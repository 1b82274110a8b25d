"""Latents: what a picture was decoded from, as a safetensors file, and a fingerprint of it.

They are the denoiser's last output in the denoiser's own space: after the last step, before the VAE's
scaling is undone. `vae.decode(latents / scaling_factor + shift_factor)` makes the picture of them; both
numbers are in the file. Packed latents (FLUX: one token for 2x2 cells) are unpacked first.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import safetensors.torch
import torch

from backends._lane import WithLatents
from router.types import RawImage

FINGERPRINT_SHAPE = (4, 8, 8)
KEY = "latents"
_LENGTH_BYTES = 8  # before the header of a safetensors file

_Callback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]


class LastLatents:
    """A pipeline's `callback_on_step_end` around another one, that keeps the latents of the last step."""

    def __init__(self, callback: _Callback) -> None:
        self._callback = callback
        self._latents: torch.Tensor | None = None

    def __call__(self, pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        tensors = self._callback(pipeline, index, timestep, tensors)
        self._latents = tensors[KEY]
        return tensors

    def beside(self, image: RawImage, pipeline: Any) -> WithLatents:
        """The picture with the latents it came from."""
        assert self._latents is not None
        latents = unpacked(self._latents, pipeline, image.height, image.width)[0]  # [channels, h / 8, w / 8]
        return WithLatents(image, _file(latents, pipeline.vae.config), fingerprint(latents))


def unpacked(latents: torch.Tensor, pipeline: Any, height: int, width: int) -> torch.Tensor:
    """[1, channels, height / 8, width / 8], of what FLUX packs as [1, tokens, channels * 4]."""
    if latents.ndim != 3:
        return latents
    cells: torch.Tensor = pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)
    return cells


def fingerprint(latents: torch.Tensor) -> bytes:
    """512 bytes: 4 x 8 x 8 float16, little-endian, of latents [channels, height, width].

    Adaptive average pooling in float32 on the CPU, over all three axes: 4 channels stay as they are,
    of 16 each group of four neighbours becomes its mean; rows and columns become 8 each.
    """
    pooled = torch.nn.functional.adaptive_avg_pool3d(latents.float().cpu()[None], FINGERPRINT_SHAPE)
    return pooled.half().numpy().astype("<f2").tobytes()


def _file(latents: torch.Tensor, config: Any) -> bytes:
    """In the dtype that the pipeline computed in."""
    facts = {
        "scaling_factor": f"{config.scaling_factor}",
        "shift_factor": f"{getattr(config, 'shift_factor', None) or 0.0}",
    }
    return _ordered(safetensors.torch.save({KEY: latents.cpu().contiguous()}, metadata=facts))


def _ordered(file: bytes) -> bytes:
    """The library writes metadata in another order each time; equal latents are to be equal files."""
    end = _LENGTH_BYTES + int.from_bytes(file[:_LENGTH_BYTES], "little")
    header = json.loads(file[_LENGTH_BYTES:end])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return file[:_LENGTH_BYTES] + text.ljust(end - _LENGTH_BYTES) + file[end:]
