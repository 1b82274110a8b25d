"""Pipelines of the published sizes with random weights, built on the device: speed asks for no others.

`gpu_models.json` holds the public configurations; `tiny` is the same layout small enough for a test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

TOKENIZERS = Path(__file__).resolve().parent.parent / "tests" / "data" / "tokenizers"
TOKENIZER_CLASSES = {"clip": "CLIPTokenizer", "t5": "T5TokenizerFast"}
SPECIFICATIONS: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text())
NAMES = tuple(SPECIFICATIONS)
TINY_SIDE = 64


@dataclass(frozen=True)
class Asked:
    """What a picture of the model is asked for with."""

    height: int
    width: int
    steps: int
    guidance_scale: float

    @classmethod
    def of(cls, name: str, tiny: bool) -> Asked:
        known = SPECIFICATIONS[name]
        height, width = (TINY_SIDE, TINY_SIDE) if tiny else (known["height"], known["width"])
        return cls(height, width, 4 if tiny else known["steps"], known["guidance_scale"])


def build(name: str, device: torch.device, dtype: torch.dtype, *, tiny: bool = False) -> Any:
    """The pipeline of that name on the device. Its weights are drawn there, the same each time."""
    known = SPECIFICATIONS[name]
    torch.manual_seed(0)
    parts: dict[str, Any] = dict(known["settings"])
    parts["scheduler"] = _scheduler(*known["scheduler"])
    for part, kind in known["tokenizers"].items():
        parts[part] = getattr(transformers, TOKENIZER_CLASSES[kind]).from_pretrained(TOKENIZERS / kind)
    for part, (kind, config) in known["modules"].items():
        changes = known["tiny"].get(part, {}) if tiny else {}
        with _drawn_on(device, dtype):
            parts[part] = make_module(kind, {**config, **changes}).to(device, dtype).eval()
    pipeline = getattr(diffusers, known["pipeline"])(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def denoiser(pipeline: Any) -> tuple[str, Any]:
    """Its name and itself."""
    name = "unet" if getattr(pipeline, "unet", None) is not None else "transformer"
    return name, getattr(pipeline, name)


def parameters(module: torch.nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def _scheduler(kind: str, config: dict[str, Any]) -> Any:
    return getattr(diffusers, kind)(**config)


def make_module(kind: str, config: dict[str, Any]) -> Any:
    if kind.startswith("CLIP"):
        return getattr(transformers, kind)(transformers.CLIPTextConfig(**config))
    if kind.startswith("T5"):
        return getattr(transformers, kind)(transformers.T5Config(**config))
    return getattr(diffusers, kind)(**config)


@contextmanager
def _drawn_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """No weight is ever in the host's memory, nor in float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)
