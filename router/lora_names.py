"""Names of a LoRA's layers, from every layout that is read, as Diffusers' own with `_` between their parts.

Trainers write `_` for `.`, and the names of the model that they train: kohya's those of the published
checkpoint (`input_blocks_4_1_...`), others those of Diffusers. Checked against
`diffusers.loaders.lora_conversion_utils`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
DENOISERS = ("unet", "transformer")

_KOHYA = {
    "lora_unet_": "unet",
    "lora_transformer_": "transformer",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
}
_TRANSFORMER = re.compile(
    r"(transformer_blocks|single_transformer_blocks|double_blocks|single_blocks|joint_blocks)_"
)
"""How names begin that a UNet has not; files without a prefix are told apart by them."""

_ROLE = re.compile(
    r"(?P<module>.+?)(?:\.lora_(?P<new>A|B|down|up)|[._]lora\.(?P<old>down|up)"
    r"|\.lora_linear_layer\.(?P<text>down|up))\.(?P<kind>weight|bias)"
)
_UP = ("B", "up")

_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_RESNET = {
    "in_layers_0": "norm1",
    "in_layers_2": "conv1",
    "out_layers_0": "norm2",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_ALONE = {
    "input_blocks_0_0": "conv_in",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}
_MIDDLE = {"0": "resnets_0", "1": "attentions_0", "2": "resnets_1"}
_FLUX = {
    "img_attn_proj": "attn_to_out_0",
    "img_attn_qkv": "attn_to_q",
    "img_mlp_0": "ff_net_0_proj",
    "img_mlp_2": "ff_net_2",
    "img_mod_lin": "norm1_linear",
    "txt_attn_proj": "attn_to_add_out",
    "txt_attn_qkv": "attn_add_q_proj",
    "txt_mlp_0": "ff_context_net_0_proj",
    "txt_mlp_2": "ff_context_net_2",
    "txt_mod_lin": "norm1_context_linear",
    "linear1": "attn_to_q",
    "linear2": "proj_out",
    "modulation_lin": "norm_linear",
}
"""Layer of a FLUX block as published -> Diffusers' name, the first of several where one became several."""
FUSED = {"attn_qkv": 3, "linear1": 4}
"""End of a layer's name -> how many layers of Diffusers it became. Its outputs are those of all."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which matrix of which layer one tensor is."""

    component: str
    module: str
    """With `_` between its parts, in the file's own naming."""
    up: bool
    """The second of the two matrices, or its bias."""
    weight: bool
    """Not a bias."""


def place_of(tensor: str) -> Place | None:
    """`None` for what is no part of a LoRA."""
    found = _ROLE.fullmatch(tensor)
    if found is None:
        return None
    component, module = _component(found["module"])
    role = found["new"] or found["old"] or found["text"]
    if found["old"]:
        module = _renamed(component, module)
    return Place(component, module, role in _UP, found["kind"] == "weight")


def is_kohya(tensor: str) -> bool:
    return tensor.startswith(tuple(_KOHYA))


def has_prefix(tensor: str) -> bool:
    """Whether the name says which component it is of."""
    return tensor.startswith((*_KOHYA, *(f"{name}." for name in DENOISERS + TEXT_ENCODERS)))


def diffusers_name(module: str, layers_per_block: int) -> str:
    """The name that Diffusers gives the layer of a UNet or of FLUX, whichever naming it has."""
    if module in _ALONE:
        return _ALONE[module]
    first, *parts = re.split(r"_(\d+)_", module, maxsplit=1)
    if len(parts) != 2:
        return module
    number, rest = int(parts[0]), parts[1]
    if first == "middle_block":
        return f"mid_block_{_MIDDLE.get(parts[0], parts[0])}_{_RESNET.get(rest, rest)}"
    if first == "input_blocks":
        return _down(*divmod(number - 1, layers_per_block + 1), rest)
    if first == "output_blocks":
        return _up(*divmod(number, layers_per_block + 1), rest)
    if first in ("double_blocks", "single_blocks") and rest in _FLUX:
        return f"{'single_' if first == 'single_blocks' else ''}transformer_blocks_{number}_{_FLUX[rest]}"
    return module


def _component(module: str) -> tuple[str, str]:
    for prefix, component in _KOHYA.items():
        if module.startswith(prefix):
            rest = module.removeprefix(prefix)
            return "transformer" if _TRANSFORMER.match(rest) else component, rest
    first, _, rest = module.partition(".")
    if first in DENOISERS + TEXT_ENCODERS:
        return first, rest.replace(".", "_")
    name = module.replace(".", "_")
    return "transformer" if _TRANSFORMER.match(name) else "unet", name


def _renamed(component: str, module: str) -> str:
    """Diffusers' own layout of 2023: the layer's name within an attention processor."""
    start, _, last = module.replace("_processor", "").rpartition("_to_")
    if not start:
        return module
    if component in TEXT_ENCODERS:
        return f"{start}_{_OLD_TEXT.get(f'to_{last}', last)}"
    return f"{start}_to_{'out_0' if last == 'out' else last}"


def _down(block: int, layer: int, rest: str) -> str:
    kind, _, inner = rest.partition("_")
    if inner == "op":
        return f"down_blocks_{block}_downsamplers_0_conv"
    return f"down_blocks_{block}_{_part(kind)}_{layer}_{_RESNET.get(inner, inner)}"


def _up(block: int, layer: int, rest: str) -> str:
    kind, _, inner = rest.partition("_")
    if inner == "conv":
        return f"up_blocks_{block}_upsamplers_0_conv"
    return f"up_blocks_{block}_{_part(kind)}_{layer}_{_RESNET.get(inner, inner)}"


def _part(kind: str) -> str:
    return "attentions" if kind == "1" else "resnets"
