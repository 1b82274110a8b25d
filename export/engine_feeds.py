"""Feeds: plausible inputs of an engine, drawn from what an export's folder says, without its source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from export.engines import PlannedEngine, shape_of
from router.manifest import Manifest, TensorRecord

_SEED: Final = 1
_TIMESTEPS: Final = 1000.0
_POSITIONS: Final = 64
_VOCABULARY: Final = 1000
"""Where the text encoder's configuration does not tell."""

Feeds = Mapping[str, NDArray[Any]]


def draw_feeds(folder: Path, manifest: Manifest, engine: PlannedEngine) -> dict[str, NDArray[Any]]:
    """Inputs by name, the same at each call: `input_ids` int64, everything else float32."""
    generator = np.random.default_rng(_SEED)
    return {each.name: _draw(folder, manifest, engine, each, generator) for each in engine.inputs}


def _draw(
    folder: Path,
    manifest: Manifest,
    engine: PlannedEngine,
    tensor: TensorRecord,
    generator: np.random.Generator,
) -> NDArray[Any]:
    shape = shape_of(tensor)
    match tensor.name:
        case "input_ids":
            return generator.integers(0, _vocabulary(folder / engine.component), shape)
        case "timestep":
            most = 1.0 if manifest.family == "flux" else _TIMESTEPS
            return generator.uniform(0, most, shape).astype(np.float32)
        case "guidance":
            return generator.uniform(1, 7, shape).astype(np.float32)
        case "time_ids":
            return np.broadcast_to(_time_ids(manifest, engine, shape[-1]), shape).copy()
        case "img_ids":
            return generator.integers(0, _POSITIONS, shape).astype(np.float32)
        case "txt_ids":
            return np.zeros(shape, np.float32)
        case _:
            return generator.standard_normal(shape, np.float32)


def _vocabulary(component: Path) -> int:
    config = json.loads((component / "config.json").read_text(encoding="utf-8"))
    return int(config.get("vocab_size", _VOCABULARY))


def _time_ids(manifest: Manifest, engine: PlannedEngine, count: int) -> NDArray[Any]:
    """Original size, crop and target size, as SDXL's pipeline fills them in."""
    profile = next(each for each in manifest.profiles if each.name in engine.profiles)
    size = (profile.height, profile.width)
    return np.array((*size, 0, 0, *size)[:count], np.float32)
