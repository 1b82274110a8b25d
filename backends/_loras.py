"""Which of the configured LoRAs a Diffusers instance can apply, and what is kept free for them."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any, Protocol

import torch

from router.capabilities import Capabilities
from router.config import InstanceConfig
from router.lora import LoraAbility, LoraFacts
from router.lora_fit import loras_of
from router.model_folder import ModelFolder

NEEDS_PEFT = "it applies LoRAs with peft, which is not installed: pip install 'triptych[lora]'."


class LoraOptions(Protocol):
    """The options that matter to LoRAs."""

    compile: bool
    fuse_qkv: bool
    quantize: Any
    offload: Any
    loaded_loras: int


def with_loras(
    found: Capabilities, folder: ModelFolder, instance: InstanceConfig, options: LoraOptions
) -> Capabilities:
    """The same with the LoRAs of `instance.lora_folders`. Blocks; raises `ConfigError`.

    The bytes of as many as are held at once count as weights, those of the largest.
    """
    facts = loras_of(folder, found.family, instance.lora_folders)
    none = _refusal(options) if facts else ""
    loras = LoraAbility(facts, options.loaded_loras, none)
    if not loras.names:
        return replace(found, loras=loras)
    kept = _kept_bytes(facts, options.loaded_loras, found.dtype)
    note = f"{len(loras.names)} LoRAs, {options.loaded_loras} held at once in up to {kept / 1e6:,.1f} MB"
    footprint = replace(found.footprint, weights_bytes=found.footprint.weights_bytes + kept)
    return replace(found, loras=loras, footprint=footprint, notes=(*found.notes, note))


def _refusal(options: LoraOptions) -> str:
    """Why such an instance applies none; empty where it does."""
    for key in ("compile", "fuse_qkv"):
        if getattr(options, key):
            return f"it applies no LoRA: its option `{key}` changes the layers that one would change."
    for key in ("quantize", "offload"):
        if getattr(options, key) != "none":
            return f"it applies no LoRA with its option `{key}` {getattr(options, key)!r}."
    return "" if importlib.util.find_spec("peft") else NEEDS_PEFT


def _kept_bytes(facts: tuple[LoraFacts, ...], count: int, dtype: str) -> int:
    """In the instance's dtype, whatever the files are in."""
    counts = sorted((each.parameters for each in facts if not each.why_not), reverse=True)
    item: int = getattr(torch, dtype).itemsize
    return item * sum(counts[:count])
