"""Lora: a small file that changes a model's layers, known by the header of its safetensors file alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from router.errors import ConfigError
from router.header import Header, HeaderError, Tensor
from router.lora_names import FUSED, is_kohya, place_of

SUFFIX = ".safetensors"
PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
SAVED_AS = "pytorch_lora_weights"
"""What Diffusers calls the file: such a LoRA has the name of its folder."""

MAX_LISTED = 20
"""Names in a sentence."""

WIDTHS: Mapping[tuple[str, int], str] = {
    ("unet", 768): "stable-diffusion",
    ("unet", 1024): "stable-diffusion-2",
    ("unet", 2048): "stable-diffusion-xl",
    ("transformer", 1536): "stable-diffusion-3",
    ("transformer", 2432): "stable-diffusion-3",
    ("transformer", 3072): "flux",
}
"""Denoiser and width -> family, of published models. A UNet's width is that of the text it reads
(`cross_attention_dim`), a transformer's that of its attention (heads x `attention_head_dim`)."""

_OTHERS = {
    r"dora_scale|lora_magnitude_vector": "is a DoRA",
    r"hada_w|lokr_w|\.oft_|\.glora|\.on_input": "is a LyCORIS (LoHa, LoKr, OFT)",
    r"lora_mid": "is a LoCon with a third matrix",
    r"diff(_b)?$|norm": "holds whole layers beside its matrices",
}
"""Tensor names -> what the file is besides, or instead."""


class LoraError(ValueError):
    """Why a file cannot be used: the rest of a sentence that begins with the LoRA, without its full stop."""


@dataclass(frozen=True, slots=True)
class LoraFacts:
    """What is known of one configured LoRA, and whether the instance can apply it."""

    name: str
    family: str = ""
    """Diffusers' name of the family it was made for; empty where the widths are of no published one."""
    width: int | None = None
    """See `WIDTHS`; `None` for one that changes no attention."""
    rank: int | None = None
    """The largest of its layers."""
    size_bytes: int = 0
    """Of the file's tensors."""
    parameters: int = 0
    """Weights as they lie in the model, where a fused layer's may stand several times."""
    why_not: str = ""
    """Why this instance cannot apply it, as the rest of a sentence; empty if it can."""


@dataclass(frozen=True, slots=True)
class LoraAbility:
    """Which LoRAs an instance can apply, and why not the others."""

    facts: tuple[LoraFacts, ...] = ()
    """All that are configured, those that do not fit too."""
    most: int | None = None
    """Most of them in one request; `None` is no limit."""
    none: str = ""
    """Why it applies none at all, as a sentence."""

    @property
    def names(self) -> tuple[str, ...]:
        """Those that can be applied."""
        return () if self.none else tuple(each.name for each in self.facts if not each.why_not)

    def why_not(self, asked: Sequence[str]) -> str | None:
        """Why LoRAs of these names cannot all be applied, as a sentence."""
        if self.none and asked:
            return self.none
        if self.most is not None and len(asked) > self.most:
            return f"`loras` names {len(asked)}, and it holds {self.most} at once; name fewer."
        unfit = {each.name: each.why_not for each in self.facts if each.why_not}
        able = self.names
        for name in asked:
            if name in unfit:
                return f"LoRA {name!r} {unfit[name]}; those that fit: {_listed(able)}."
            if name not in able:
                return f"it has no LoRA {name!r}; it has {_listed(able)}."
        return None


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "") or "none"


NO_LORAS = LoraAbility()
"""Of an instance that none is configured for."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One changed layer of the model."""

    component: str
    module: str
    """With `_` between its parts, in the file's own naming."""
    in_width: int
    out_width: int
    rank: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Lora:
    """A file that holds a LoRA and nothing else."""

    name: str
    file: Path
    layers: tuple[Layer, ...]
    size_bytes: int
    kohya: bool

    @classmethod
    def read(cls, name: str, file: Path) -> Lora:
        """Raises `LoraError`."""
        tensors = _tensors(file)
        _check_names(tensors)
        size_bytes = sum(tensor.size_bytes for tensor in tensors.values())
        return cls(name, file, tuple(_layers(tensors)), size_bytes, any(map(is_kohya, tensors)))

    @property
    def denoiser(self) -> str:
        """`unet`, `transformer`, or empty where it changes text encoders alone."""
        found = {layer.component for layer in self.layers} & {"unet", "transformer"}
        return "".join(sorted(found)[:1])

    @property
    def width(self) -> int | None:
        """See `WIDTHS`."""
        ends = ("attn2_to_k", "attn2_to_v") if self.denoiser == "unet" else _TRANSFORMER_ENDS
        widths = (layer.in_width for layer in self.layers if layer.module.endswith(ends))
        return next(widths, None)

    @property
    def family(self) -> str:
        """Empty where the widths are of no published family."""
        return WIDTHS.get((self.denoiser, self.width or 0), "")

    def facts(self, why_not: str = "") -> LoraFacts:
        rank = max(layer.rank for layer in self.layers)
        parameters = sum(layer.parameters for layer in self.layers)
        return LoraFacts(self.name, self.family, self.width, rank, self.size_bytes, parameters, why_not)


_TRANSFORMER_ENDS = ("attn_to_q", "attn_to_k", "attn_to_v", "img_attn_qkv", "_linear1")


def find_loras(folders: Sequence[str]) -> dict[str, Path]:
    """Name -> file, of all folders; pickled files too, so that they are refused and not overlooked.

    `ink.safetensors` and `ink/pytorch_lora_weights.safetensors` are both called `ink`. Blocks; raises
    `ConfigError` for a folder that is not there, and for a name that stands twice.
    """
    found: dict[str, Path] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ConfigError(f"`lora_folders` names {folder.name!r}, which is no folder; correct the path.")
        for file in _files(folder):
            name = file.parent.name if file.stem == SAVED_AS and file.parent != folder else file.stem
            if name in found:
                raise ConfigError(
                    f"`lora_folders` holds two LoRAs called {name!r}, one in {found[name].parent.name!r} and"
                    f" one in {file.parent.name!r}; rename one."
                )
            found[name] = file
    return found


def _files(folder: Path) -> Iterable[Path]:
    """Those of the folder itself, and those that Diffusers saved into folders of it."""
    beside = (file for file in folder.iterdir() if file.suffix in (SUFFIX, *PICKLED))
    return sorted([*beside, *folder.glob(f"*/{SAVED_AS}.*")])


def _tensors(file: Path) -> Mapping[str, Tensor]:
    if file.suffix in PICKLED:
        raise LoraError("is a pickle, which can run code when it is read; convert it to safetensors")
    try:
        return Header.read(file).tensors
    except HeaderError as exc:
        raise LoraError(f"{exc}; {exc.cure}") from exc
    except OSError as exc:
        raise LoraError(f"cannot be read ({exc.strerror}); copy it again") from exc


def _check_names(tensors: Mapping[str, Tensor]) -> None:
    strange = [name for name in tensors if place_of(name) is None and not name.endswith(".alpha")]
    for name in strange:
        for pattern, kind in _OTHERS.items():
            if re.search(pattern, name):
                raise LoraError(f"{kind} ({name!r}), which is not read; name a plain LoRA")
    if strange:
        raise LoraError(f"is no LoRA: its tensor {strange[0]!r} is no part of one; name another file")


def _layers(tensors: Mapping[str, Tensor]) -> Iterable[Layer]:
    """Raises `LoraError` where a layer's two matrices are not both there, or do not go together."""
    downs: dict[tuple[str, str], Tensor] = {}
    ups: dict[tuple[str, str], Tensor] = {}
    for name, tensor in tensors.items():
        place = place_of(name)
        if place is not None and place.weight:
            (ups if place.up else downs)[place.component, place.module] = tensor
    if not downs:
        raise LoraError("is no LoRA: it holds no matrices; name another file")
    for component, module in sorted(downs.keys() ^ ups.keys()):
        raise LoraError(f"lacks one of the two matrices of its layer {component}.{module}; copy it again")
    return [_layer(*place, down, ups[place]) for place, down in downs.items()]


def _layer(component: str, module: str, down: Tensor, up: Tensor) -> Layer:
    if len(down.shape) < 2 or len(up.shape) < 2 or down.shape[0] != up.shape[1]:
        raise LoraError(f"has two matrices for its layer {component}.{module} that do not go together")
    copies = next((count for end, count in FUSED.items() if module.endswith(end)), 1)
    parameters = copies * down.elements + up.elements
    return Layer(component, module, down.shape[1], up.shape[0], down.shape[0], parameters)
