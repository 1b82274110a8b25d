"""Checkpoint: a `.safetensors` file of a whole model as its makers publish it, known by its header alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from router.errors import LoadError
from router.header import Header, HeaderError, Tensor
from router.layouts import DENOISER, LAYOUTS, Layout, Part

SUFFIX = ".safetensors"
PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
SUFFIXES = (SUFFIX, *PICKLED, ".gguf")
"""What ends the name of a checkpoint, of the kinds that are not read too."""

_TRANSFORMERS = {
    "stable-diffusion-3": "joint_blocks.0.context_block.adaLN_modulation.1.bias",
    "flux": "double_blocks.0.img_attn.norm.key_norm.scale",
}
"""Family -> a tensor that all its denoisers have."""

_UNET = f"{DENOISER}input_blocks.0.0.weight"

_UNET_ALONE: dict[tuple[int | None, bool], str] = {
    (768, False): "stable-diffusion",
    (2048, True): "stable-diffusion-xl",
}
"""Width of the text that it reads and whether it is told the picture's size -> family, of published UNets."""

_NOT_READ = "which is not read from a single file; name its folder in Diffusers' layout"

_OTHERS = {
    r"(.*\.)?lora_|.*\.lora_(A|B|down|up)\.": "is a LoRA, which changes a model and is none; name the model",
    r"control_model\.|controlnet_cond_embedding\.": "is a ControlNet, which steers a model; name the model",
    r"(model\.diffusion_model\.)?distilled_guidance_layer\.": f"is Chroma, {_NOT_READ}",
    r"(model\.diffusion_model\.)?(single_stream_modulation|double_stream_modulation_img)\.": (
        f"is FLUX.2, {_NOT_READ}"
    ),
    r"cond_stage_model\.model\.": f"is Stable Diffusion 2, {_NOT_READ}",
    r"conditioner\.embedders\.0\.model\.": f"is the refiner of Stable Diffusion XL, {_NOT_READ}",
    r"edm_mean$": f"is Playground v2.5, {_NOT_READ}",
}
"""Names of tensors -> what the file is instead, though it may look like one of ours."""

_COMPONENTS = {
    r"(down_blocks|transformer_blocks|single_transformer_blocks)\.\d": "a denoiser in Diffusers' layout",
    r"(encoder|decoder)\.(conv_in|conv_out|down|up|mid)": "a VAE",
    r"(text_model|encoder\.block|shared)\b": "a text encoder",
}
"""Names of tensors -> which component of a model the file is."""

_QUANTISED = re.compile(
    r".*(scaled_fp8|\.(scale_weight|weight_scale|absmax|quant_map|quant_state.*|qweight))"
)
"""Tensors that tell how the others were packed. Read without them, those would be noise."""

_WEIGHTS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


class Checkpoint:
    """Every method and the constructor raise `LoadError` with one sentence and its cure."""

    def __init__(self, file: Path, instance: str) -> None:
        self.file = file
        self._instance = instance
        self.header = self._read()
        self.tensors = self.header.tensors
        self.family = self._recognised()
        self._parts = {name: self._part(part) for name, part in self.layout.parts.items()}
        self._check_weights()

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.family]

    def part(self, component: str) -> Mapping[str, Tensor]:
        """The component's tensors by their names without the prefix; empty where it lies elsewhere."""
        return self._parts.get(component, {})

    def refuse(self, what: str) -> NoReturn:
        """The rest of a sentence that begins with the file, without its full stop."""
        raise LoadError(
            f"{self._instance}: the checkpoint {self.file.name!r} {what}.", instance=self._instance
        )

    def _read(self) -> Header:
        if self.file.suffix in PICKLED:
            self.refuse("is a pickle, which can run code when it is read; convert it to safetensors")
        if self.file.suffix != SUFFIX:
            self.refuse(f"does not end with {SUFFIX}; only such files are read")
        try:
            return Header.read(self.file)
        except HeaderError as exc:
            self.refuse(f"{exc}; {exc.cure}")
        except OSError as exc:
            self.refuse(f"cannot be read ({exc.strerror}); correct `source`")

    def _recognised(self) -> str:
        """The one family that the names and shapes are of."""
        if other := self._named_by(_OTHERS):
            self.refuse(other)
        found = list(self._candidates())
        if len(found) > 1:
            titles = " and ".join(LAYOUTS[family].title for family in found)
            self.refuse(f"may be {titles}, it has tensors of both; name a checkpoint of one model")
        if not found:
            self._refuse_unknown()
        return found[0]

    def _candidates(self) -> Iterator[str]:
        for family, mark in _TRANSFORMERS.items():
            if mark in self.tensors or DENOISER + mark in self.tensors:
                yield family
        if _UNET not in self.tensors:
            return
        told = [
            family
            for family in ("stable-diffusion", "stable-diffusion-xl")
            if any(self._has(name, family) for name in LAYOUTS[family].parts if name.startswith("text"))
        ]
        yield from told or self._of_unet_alone()

    def _of_unet_alone(self) -> Iterator[str]:
        """Without a text encoder beside it only the widths tell."""
        unet = self._part(LAYOUTS["stable-diffusion"].parts["unet"])
        width = axis_of(unet, ".attn2.to_k.weight", 1)
        family = _UNET_ALONE.get((width, "label_emb.0.0.weight" in unet))
        if family is None:
            self.refuse(
                f"is a UNet that reads text of width {width} and holds no text encoder, so its family is"
                " ambiguous; name a checkpoint of the whole model"
            )
        yield family

    def _refuse_unknown(self) -> NoReturn:
        known = ", ".join(layout.title for layout in LAYOUTS.values())
        if component := self._named_by(_COMPONENTS):
            self.refuse(f"is {component} alone, not a model; name the folder or the checkpoint of the model")
        self.refuse(f"has an unknown layout; the known ones are {known}")

    def _named_by(self, table: Mapping[str, str]) -> str | None:
        kinds = ((re.compile(pattern), kind) for pattern, kind in table.items())
        return next((kind for pattern, kind in kinds if any(map(pattern.match, self.tensors))), None)

    def _has(self, component: str, family: str) -> bool:
        prefixes = LAYOUTS[family].parts[component].prefixes
        return any(name.startswith(prefixes) for name in self.tensors)

    def _part(self, part: Part) -> Mapping[str, Tensor]:
        """A denoiser may stand without its prefix; then everything is its own that has no other's."""
        for prefix in part.prefixes:
            found = {
                name.removeprefix(prefix): tensor
                for name, tensor in self.tensors.items()
                if name.startswith(prefix)
            }
            if found:
                return found
        if part.prefixes != (DENOISER,):
            return {}
        others = tuple(prefix for each in self.layout.parts.values() for prefix in each.prefixes)
        return {name: tensor for name, tensor in self.tensors.items() if not name.startswith(others)}

    def _check_weights(self) -> None:
        for component, tensors in self._parts.items():
            for name, tensor in tensors.items():
                if _QUANTISED.fullmatch(name) or (name.endswith(".weight") and tensor.dtype not in _WEIGHTS):
                    self.refuse(
                        f"is quantised in its {component} ({name}, {tensor.dtype}), which is not read; name a"
                        " checkpoint in float16, bfloat16, float32 or plain float8"
                    )


def axis_of(tensors: Mapping[str, Tensor], ending: str, axis: int) -> int | None:
    """The size of one axis of the first tensor whose name ends so."""
    shapes = (tensor.shape for name, tensor in tensors.items() if name.endswith(ending))
    return next((shape[axis] for shape in shapes if len(shape) > axis), None)
