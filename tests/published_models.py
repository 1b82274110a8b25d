"""Model folders of the published sizes: configurations and headers, behind which nothing is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from scripts.gpu_models import TOKENIZERS, build
from tests.headers import checkpoint


def published_model(name: str, root: Path) -> Path:
    """The folder of one of the models in `scripts/gpu_models.json`, in Diffusers' layout."""
    folder = root / name
    pipeline = build(name, torch.device("meta"), torch.float16)
    index: dict[str, Any] = {"_class_name": type(pipeline).__name__}
    for part, component in pipeline.components.items():
        if component is not None:
            index[part] = [type(component).__module__.partition(".")[0], type(component).__name__]
            _write(component, folder / part)
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _write(component: Any, folder: Path) -> None:
    folder.mkdir(parents=True)
    if isinstance(component, torch.nn.Module):
        config: Any = component.config
        (config.save_pretrained if hasattr(config, "save_pretrained") else component.save_config)(folder)
        shapes = {name: tuple(value.shape) for name, value in component.named_parameters()}
        checkpoint(folder / "model.safetensors", shapes)
    elif hasattr(component, "save_config"):
        component.save_config(folder)
    else:
        kind = "t5" if type(component).__name__.startswith("T5") else "clip"
        shutil.copytree(TOKENIZERS / kind, folder, dirs_exist_ok=True)
