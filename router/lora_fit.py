"""Which LoRAs fit a model: both known by their headers and configurations alone, nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router.header import Tensor
from router.lora import WIDTHS, Layer, Lora, LoraError, LoraFacts, find_loras
from router.lora_names import DENOISERS, FUSED, TEXT_ENCODERS, diffusers_name
from router.model_folder import ModelFolder
from router.single_file import SingleFile

_NO_KOHYA = "stable-diffusion-3"
_TITLES = {"unet": "UNet", "transformer": "transformer"}
_SHOWN = 3

Widths = Mapping[str, tuple[int, int]]
"""Layer, named as Diffusers does with `_` between the parts -> what it takes and what it gives."""


class LoraFit:
    """What a model has for a LoRA to change."""

    def __init__(self, model: ModelFolder, family: str) -> None:
        components = model.components()
        self.family = family
        self.denoiser = next((name for name in DENOISERS if name in components), "")
        self._config = model.config(self.denoiser)
        self._kinds = {name: components[name][1] for name in TEXT_ENCODERS if name in components}
        inside = model.inside() if isinstance(model, SingleFile) else []
        self._widths = {
            name: self._read(model.tensors(name))
            for name in (self.denoiser, *self._kinds)
            if name not in inside
            or name == "unet"  # published text encoders and transformers name theirs otherwise
        }

    @property
    def width(self) -> int | None:
        """See `router.lora.WIDTHS`."""
        config = self._config
        if self.denoiser == "unet":
            width = config.get("cross_attention_dim")
            return max(width) if isinstance(width, list) else width
        heads, size = config.get("num_attention_heads"), config.get("attention_head_dim")
        return heads * size if heads and size else None

    def why_not(self, lora: Lora) -> str:
        """The rest of a sentence that begins with the LoRA; empty where it fits."""
        if lora.denoiser and lora.denoiser != self.denoiser:
            return f"changes a {_TITLES[lora.denoiser]}{_of(lora.family)}, and this model has {self._told()}"
        if lora.width and self.width and lora.width != self.width:
            return self._other_width(lora)
        if lora.kohya and self.family == _NO_KOHYA:
            return (
                f"is in kohya's layout, which is not read for {self.family}; convert it to Diffusers' layout"
            )
        return next(filter(None, (self._without(name) for name in _components(lora))), "") or self._misfit(
            lora
        )

    def facts(self, name: str, file: Any) -> LoraFacts:
        """What is known of one file, with the reason where it cannot be applied. Blocks."""
        try:
            lora = Lora.read(name, file)
        except LoraError as exc:
            return LoraFacts(name, why_not=str(exc))
        return lora.facts(self.why_not(lora))

    def _read(self, tensors: Mapping[str, Tensor]) -> Widths:
        found = {
            self._name(name.removesuffix(".weight").replace(".", "_")): (tensor.shape[1], tensor.shape[0])
            for name, tensor in tensors.items()
            if name.endswith(".weight") and len(tensor.shape) > 1
        }
        return found

    def _name(self, module: str) -> str:
        layers = self._config.get("layers_per_block", 2)
        name = diffusers_name(module, layers if isinstance(layers, int) else max(layers))
        return name.removeprefix("text_model_")

    def _told(self) -> str:
        return f"a {_TITLES[self.denoiser]} ({self.family})" if self.denoiser else "none that LoRAs are for"

    def _other_width(self, lora: Lora) -> str:
        of = "text" if self.denoiser == "unet" else "attention"
        own = WIDTHS.get((self.denoiser, self.width or 0), self.family)
        made_for = f"{lora.width}{_of(lora.family)}"
        return f"was made for {of} of width {made_for}, and this model's is {self.width} ({own})"

    def _without(self, component: str) -> str:
        kind = self._kinds.get(component)
        if component in TEXT_ENCODERS and kind is None:
            return f"changes {component}, which this model has not"
        if kind is not None and not kind.startswith("CLIP"):
            return f"changes {component}, a {kind}, which Diffusers does not do"
        if component == "text_encoder_2" and self.family == "flux":
            return f"changes {component}, which Diffusers does not do for {self.family}"
        return ""

    def _misfit(self, lora: Lora) -> str:
        """Layer by layer, where the model's own header names them."""
        known = [layer for layer in lora.layers if layer.component in self._widths]
        absent = [layer for layer in known if self._own(layer) is None]
        if absent:
            named = ", ".join(layer.module for layer in absent[:_SHOWN])
            return (
                f"changes {len(absent)} of {len(lora.layers)} layers that this model has not"
                f" ({named}); it was made for another one"
            )
        for layer in known:
            own = self._own(layer)
            if own and own != self._asked(layer, own):
                return (
                    f"has a layer {layer.module} from {layer.in_width} to {layer.out_width} wide, and this"
                    f" model's goes from {own[0]} to {own[1]}"
                )
        return ""

    def _own(self, layer: Layer) -> tuple[int, int] | None:
        return self._widths[layer.component].get(self._name(layer.module))

    def _asked(self, layer: Layer, own: tuple[int, int]) -> tuple[int, int]:
        """What the LoRA takes the layer to be. A fused one gives more than the first of its parts."""
        fused = layer.module.endswith(tuple(FUSED))
        return layer.in_width, own[1] if fused else layer.out_width


def loras_of(model: ModelFolder, family: str, folders: Sequence[str]) -> tuple[LoraFacts, ...]:
    """All configured LoRAs, in the order of their names, and which of them fit this model.

    Blocks. Raises `ConfigError` for a folder that is not there or a name that stands twice.
    """
    files = find_loras(folders)
    if not files:
        return ()
    fit = LoraFit(model, family)
    return tuple(fit.facts(name, files[name]) for name in sorted(files))


def _components(lora: Lora) -> list[str]:
    return sorted({layer.component for layer in lora.layers})


def _of(family: str) -> str:
    return f" ({family})" if family else ""
