"""The bytes that a Diffusers model takes on its device, from headers and configurations alone.

The formulas are a start, on the safe side: what the layers of the published models allocate was counted
by running them without values (`scripts/count_workspace`), and a half is added for what their kernels
take for themselves. Where memory can be measured, what was measured takes their place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import diffusers
import torch

from router.footprint import Footprint
from router.header import Tensor
from router.model_folder import ModelFolder

Offload: TypeAlias = Literal["none", "model", "sequential"]

_UNET_ROW = 51.0
"""Elements per row, latent and channel of the first block. SDXL (320) so takes about 1 GB in float16 for a
guided picture of one megapixel, which is two rows. Counted were 16 (SDXL) and 26 (SD1.5)."""

_JOINT_ROW = 20.0
_TRANSFORMER_ROW = {"FluxTransformer2DModel": 29.0}
"""Elements per row, token and channel of a transformer. Counted were 19.3 (FLUX) and 13.5 (SD3.5)."""

_TOKEN_LATENTS = 4
"""A token is 2x2 latents."""

_DECODE_TENSORS = 4
"""Tensors of full size alive at once in the last block of a VAE's decoder. Counted were 3."""

_FLOAT32_IN_FLOAT16 = {"T5EncoderModel": ".wo."}
"""Class -> what the names of those tensors contain that transformers keeps in float32 beside float16."""


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """What of an instance's options changes the memory that it needs."""

    offload: Offload = "none"
    vae_dtype: torch.dtype | None = None
    """`None`: what the pipelines make of the model's."""
    vae_tiling: bool = False
    decode_limit: int = 1
    """Pictures that one run of the VAE decodes."""
    overlapped: bool = False
    """Whether it decodes beside the denoiser's runs."""


def footprint(folder: ModelFolder, dtype: torch.dtype, settings: MemorySettings) -> Footprint:
    """By formula; nothing is loaded."""
    vae = folder.config("vae")
    upcast = settings.vae_dtype is None and _is_upcast(folder, dtype)
    vae_dtype = torch.float32 if upcast else settings.vae_dtype or dtype
    return Footprint(
        weights_bytes=_weights_bytes(folder, dtype, settings.offload),
        row_bytes_per_pixel=max(1, math.ceil(_row_elements(folder) * dtype.itemsize)),
        decode_bytes_per_pixel=_decode_elements(vae) * vae_dtype.itemsize,
        decode_limit=1 if upcast else settings.decode_limit,
        decode_tile_pixels=_tile_pixels(vae) if settings.vae_tiling else None,
        overlapped=settings.overlapped,
    )


def _weights_bytes(folder: ModelFolder, dtype: torch.dtype, offload: Offload) -> int:
    """What of the weights lies on the device at once.

    All of them, the largest component, or the largest tensor with its successor on its way.
    """
    sizes = {name: list(_tensor_bytes(folder, name, dtype)) for name in folder.components()}
    if offload == "sequential":
        return 2 * max((max(each, default=0) for each in sizes.values()), default=0)
    totals = [sum(each) for each in sizes.values()]
    return max(totals, default=0) if offload == "model" else sum(totals)


def _tensor_bytes(folder: ModelFolder, component: str, dtype: torch.dtype) -> list[int]:
    kind = folder.components()[component][1]
    kept = _FLOAT32_IN_FLOAT16.get(kind, "") if dtype == torch.float16 else ""

    def item(name: str) -> int:
        return 4 if kept and kept in name else dtype.itemsize

    tensors: Mapping[str, Tensor] = folder.tensors(component)
    return [tensor.elements * item(name) for name, tensor in tensors.items()]


def _row_elements(folder: ModelFolder) -> float:
    """Elements of the denoiser's workspace for each row and pixel."""
    unet, transformer = folder.config("unet"), folder.config("transformer")
    if unet:
        return _UNET_ROW * int(unet.get("block_out_channels", [320])[0]) / cell_pixels(folder)
    kind = str(transformer.get("_class_name"))
    width = transformer.get("num_attention_heads", 24) * transformer.get("attention_head_dim", 128)
    per_token = _TRANSFORMER_ROW.get(kind, _JOINT_ROW) * width
    return float(per_token / _TOKEN_LATENTS / cell_pixels(folder))


def cell_pixels(folder: ModelFolder) -> int:
    """Pixels that one latent stands for."""
    blocks = len(folder.config("vae").get("block_out_channels", [0] * 4))
    return int(4 ** (blocks - 1))


def _decode_elements(vae: Mapping[str, Any]) -> int:
    channels: list[int] = vae.get("block_out_channels", [128])
    return _DECODE_TENSORS * channels[:2][-1]


def _is_upcast(folder: ModelFolder, dtype: torch.dtype) -> bool:
    """Whether the model's pipeline decodes in float32, one picture at a time, whatever the model's dtype."""
    kind = getattr(diffusers, str(folder.index.get("_class_name")), None)
    said = folder.config("vae").get("force_upcast", True)
    return dtype == torch.float16 and hasattr(kind, "upcast_vae") and bool(said)


def _tile_pixels(vae: Mapping[str, Any]) -> int:
    side = vae.get("sample_size") or 512
    height, width = side if isinstance(side, list | tuple) else (side, side)
    return int(height) * int(width)
