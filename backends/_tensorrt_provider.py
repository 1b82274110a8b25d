"""ONNX Runtime's TensorRT provider: built for the shapes of one graph, engines kept beside it.

Written from ONNX Runtime's documentation; it was not run on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from router.errors import LoadError
from router.manifest import TensorRecord

PROVIDER: Final = "TensorrtExecutionProvider"

_CACHE_FOLDER: Final = "tensorrt"
_SHAPES: Final = ("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes")


def tensorrt_settings(
    file: Path, inputs: Sequence[TensorRecord], configured: Mapping[str, Any]
) -> dict[str, Any]:
    """The provider's settings for one graph; what is `configured` goes before them.

    `inputs` are those of the manifest, empty where there is none. min = opt = max, so that one engine is
    built, at load, and none while it serves. It and the timings stay in `tensorrt/` beside the graph, and
    a new export takes them away. Raises `LoadError` where an axis is open and no shapes are configured.
    """
    cache = str(file.parent / _CACHE_FOLDER)
    settings = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": cache,
    }
    if not configured.keys() >= set(_SHAPES):
        settings |= dict.fromkeys(_SHAPES, _shapes(file, inputs))
    return {**settings, **configured}


def _shapes(file: Path, inputs: Sequence[TensorRecord]) -> str:
    """`sample:2x4x64x64,timestep:2`. A scalar has no shape to tell."""
    if not inputs or any(isinstance(axis, str) for tensor in inputs for axis in tensor.shape):
        raise LoadError(
            f"{file.parent.name}/{file.name} has open axes, for which {PROVIDER} would build engines while it"
            " serves; export the model with fixed shapes, or set trt_profile_min_shapes, _opt_ and _max_ in"
            " option `provider_options`."
        )
    return ",".join(f"{each.name}:{'x'.join(map(str, each.shape))}" for each in inputs if each.shape)
