"""Saving a pipeline in the layout that transformers 4 and 5, and so Optimum, both read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, TypeAlias

from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

TOKENIZERS = Path(__file__).parent / "data" / "tokenizers"

Parts: TypeAlias = dict[str, Any]
"""`model_index.json` with the things themselves: (library, module, scheduler or tokenizer class)."""


def save_pipeline(parts: Parts, folder: Path) -> None:
    """Write all parts and their `model_index.json` into the new `folder`."""
    folder.mkdir()
    index = dict(parts)
    for name, part in parts.items():
        if isinstance(part, tuple):
            library, component = part
            index[name] = [library, _save_component(component, folder / name)]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _save_component(component: Any, folder: Path) -> str | None:
    """Writes the component and returns the class name for `model_index.json`."""
    if component is None:
        return None
    if isinstance(component, str):
        return _save_tokenizer(component, folder)
    component.save_pretrained(folder)
    if isinstance(component, CLIPTextModel):
        _prefix_keys(folder / "model.safetensors")
    return type(component).__name__


def _save_tokenizer(description: str, folder: Path) -> str:
    """`Class` or `Class padded with X`, as in the second text encoders of SDXL and SD3."""
    class_name, _, pad = description.partition(" padded with ")
    shutil.copytree(TOKENIZERS / ("t5" if class_name.startswith("T5") else "clip"), folder)
    if pad:
        for file in (folder / "tokenizer_config.json", folder / "special_tokens_map.json"):
            file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token": pad}, indent=2) + "\n")
    return class_name


def _prefix_keys(file: Path) -> None:
    """transformers 5 leaves `text_model.` out, and 4 then draws the encoder anew with a mere warning."""
    weights = load_file(file)
    prefixed = {f"text_model.{key.removeprefix('text_model.')}": weights[key] for key in weights}
    save_file(prefixed, file, metadata={"format": "pt"})
