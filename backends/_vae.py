"""The VAE of a Diffusers instance: another one in its place, its dtype, how large pictures are decoded."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import diffusers
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file

from backends import _tasks
from backends._single_file import CONVERSIONS, misfits
from router.capabilities import Capabilities
from router.errors import ConfigError
from router.model_folder import ModelFolder

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LEAST_TILE = 512
"""Pixels of a tile's side: the blended edges of smaller ones begin to show, and each costs a run."""

_STEP = 64
_EARLIER_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Diffusers' earlier names in attention blocks, which it still reads -> today's."""


class VaeOptions(BaseModel):
    """The settings of an instance's VAE."""

    model_config = ConfigDict(extra="forbid")

    vae: str | None = None
    """Another VAE than the model's: a safetensors file, or a folder in Diffusers' layout."""
    vae_dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """`auto` is the model's, but float32 where the family's VAE overflows in float16 (SDXL's)."""
    vae_tiling: bool | Literal["auto"] = "auto"
    """`auto` decodes pictures in tiles where a whole one would take over half of the memory left."""
    vae_slicing: bool | Literal["auto"] = "auto"
    """`auto` decodes one picture at a time where several would take over half of the memory left."""


@dataclass(frozen=True, slots=True)
class VaePlan:
    """What becomes of the settings on this device."""

    dtype: torch.dtype
    is_own: bool = False
    """Whether `dtype` is not left to the pipeline."""
    overflows: bool = False
    """Whether `dtype` is float32 because the model's dtype is too narrow for it."""
    tiling: bool = False
    tile_side: int | None = None
    """Pixels, above which a side is decoded in tiles; `None` with `tiling` is the VAE's own."""
    slicing: bool = False

    @property
    def tile_pixels(self) -> int | None:
        """Most pixels that are decoded in one piece, where that is bounded here."""
        return self.tile_side and self.tile_side**2

    def notes(self) -> tuple[str, ...]:
        """What an operator should see of it."""
        found = []
        if self.overflows:
            found.append("VAE in float32, as it overflows in float16")
        elif self.is_own:
            found.append(f"VAE in {str(self.dtype).removeprefix('torch.')}")
        if self.tiling:
            above = f" above {self.tile_side} pixels a side" if self.tile_side else ""
            found.append(f"VAE in tiles{above}")
        if self.slicing:
            found.append("VAE one picture at a time")
        return tuple(found)


def plan(
    options: VaeOptions, folder: ModelFolder, found: Capabilities, dtype: torch.dtype, pictures: int
) -> VaePlan:
    """From configurations alone; `pictures` are decoded at once where there is room.

    Tiles and slices are chosen by the memory that the device has beside the weights, where that is known.
    """
    half = math.inf
    is_usual = folder.config("vae").get("_class_name") == "AutoencoderKL"
    if found.device_memory_bytes is not None and is_usual:
        half = max(0, found.device_memory_bytes - found.footprint.weights_bytes) / 2
    picture_bytes = found.footprint.decode_bytes_per_pixel
    side = _tile_side(half, picture_bytes) if options.vae_tiling == "auto" else None
    crowded = pictures * found.defaults.height * found.defaults.width * picture_bytes > half
    chosen = vae_dtype(options, folder, dtype)
    return VaePlan(
        dtype=chosen,
        is_own=options.vae_dtype != "auto" or chosen != dtype,
        overflows=options.vae_dtype == "auto" and chosen != dtype,
        tiling=side is not None if options.vae_tiling == "auto" else options.vae_tiling,
        tile_side=side,
        slicing=crowded if options.vae_slicing == "auto" else options.vae_slicing,
    )


def planned(found: Capabilities, plan: VaePlan, folder: ModelFolder, pictures: int) -> Capabilities:
    """The capabilities with the plan's bytes and notes."""
    footprint = found.footprint
    wider = plan.dtype.itemsize - DTYPES[found.dtype].itemsize
    extra_bytes = wider * sum(tensor.elements for tensor in folder.tensors("vae").values())
    return dataclasses.replace(
        found,
        notes=(*found.notes, *plan.notes()),
        footprint=dataclasses.replace(
            footprint,
            weights_bytes=footprint.weights_bytes + extra_bytes,
            decode_limit=1 if plan.slicing else pictures,
            decode_tile_pixels=plan.tile_pixels or footprint.decode_tile_pixels,
        ),
    )


def check(options: VaeOptions, folder: ModelFolder, instance: str) -> None:
    """Raise `ConfigError` for what the model's VAE cannot do."""
    wanted = [name for name in ("tiling", "slicing") if getattr(options, f"vae_{name}") is True]
    if not wanted:
        return
    config = folder.config("vae")
    kind: Any = getattr(diffusers, str(config.get("_class_name")), type(None))
    with torch.device("meta"):
        made = kind.from_config(config) if hasattr(kind, "from_config") else None
    for name in wanted:  # all classes have `enable_tiling`, and some raise in it
        if not hasattr(made, f"use_{name}"):
            raise ConfigError(
                f"{instance}: option `vae_{name}` is true, but the VAE, a {kind.__name__}, has no {name};"
                " drop it."
            )


def vae_dtype(options: VaeOptions, folder: ModelFolder, dtype: torch.dtype) -> torch.dtype:
    """`force_upcast` says whether a VAE of a family that overflows in float16 does."""
    if options.vae_dtype != "auto":
        return DTYPES[options.vae_dtype]
    kind = getattr(diffusers, str(folder.index.get("_class_name")), type(None))
    overflows = _tasks.upcasts_vae(kind) and folder.config("vae").get("force_upcast", True)
    return torch.float32 if overflows and dtype == torch.float16 else dtype


def read(folder: ModelFolder, dtype: torch.dtype) -> Any:
    """The separate VAE of the folder. Raises `LoadError` where it does not fit, before a weight is read."""
    vae = folder.vae
    assert vae is not None
    config = folder.config("vae")
    kind: Any = getattr(diffusers, config["_class_name"])
    for misfit in _misfits(config, folder.tensors("vae")):
        vae.refuse(f"{misfit}; name a VAE of the model's family")
    weights = {
        _today(name.removeprefix(vae.prefix)): weight
        for name, weight in load_file(vae.file).items()
        if name.startswith(vae.prefix)
    }
    convert = _conversion(config, weights)
    with torch.device("meta"):
        made = kind.from_config(config)
    made.load_state_dict(weights if convert is None else convert(weights, config), assign=True)
    return made.to(dtype).eval()


def keep_in(dtype: torch.dtype, pipeline: Any) -> None:
    """The VAE in a dtype of its own for good, whatever the pipeline hands to it.

    Diffusers would cast it before and after each picture; pictures that are decoded together could not.
    """
    vae = pipeline.vae
    vae.to(dtype)
    vae.register_to_config(force_upcast=False)
    vae.decode = _taking(vae.decode, dtype)
    vae.encode = _encoding(vae.encode, dtype, keeps=_tasks.upcasts_vae(type(pipeline)))


def apply(plan: VaePlan, pipeline: Any) -> None:
    """Tiles and slices, set on the pipeline's VAE."""
    vae: Any = getattr(pipeline, "vae", None)
    if plan.slicing:
        vae.enable_slicing()
    if plan.tiling:
        vae.enable_tiling()
    if plan.tile_side:
        vae.tile_sample_min_size = plan.tile_side
        vae.tile_latent_min_size = plan.tile_side // 2 ** (len(vae.config.block_out_channels) - 1)


def _tile_side(half: float, decode_bytes_per_pixel: int) -> int | None:
    """The largest side whose square is decoded in `half`; `None` where any picture is."""
    if half == math.inf or not decode_bytes_per_pixel:
        return None
    side = math.isqrt(int(half / decode_bytes_per_pixel)) // _STEP * _STEP
    return None if side >= _MOST_SIDE else max(LEAST_TILE, side)


_MOST_SIDE = 4096
"""As `Capabilities.max_side`: nothing larger is asked for."""


def _misfits(config: Mapping[str, Any], tensors: Mapping[str, Any]) -> list[str]:
    shapes = {_today(name): tensor.shape for name, tensor in tensors.items()}
    return list(misfits(config, shapes, _conversion(config, shapes)))


def _conversion(config: Mapping[str, Any], names: Iterable[str]) -> Any:
    """What turns published names into Diffusers'; `None` where they are that already."""
    if any(name.startswith("decoder.up_blocks.") for name in names):
        return None
    return CONVERSIONS[config["_class_name"]]["checkpoint_mapping_fn"]


def _today(name: str) -> str:
    *path, module, kind = name.split(".")
    return ".".join([*path, _EARLIER_NAMES.get(module, module), kind]) if path else name


def _taking(method: Any, dtype: torch.dtype) -> Any:
    @functools.wraps(method)
    def taking(z: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return method(z.to(dtype), *args, **kwargs)

    return taking


def _encoding(method: Any, dtype: torch.dtype, *, keeps: bool) -> Any:
    """`keeps`: the pipeline itself casts the latents back; the others expect them in what they gave."""

    @functools.wraps(method)
    def encoding(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        output = method(x.to(dtype), *args, **kwargs)
        if not keeps:
            output.latent_dist = DiagonalGaussianDistribution(output.latent_dist.parameters.to(x.dtype))
        return output

    return encoding
