"""Capabilities of a Diffusers model folder, from its configuration alone."""

from __future__ import annotations

import os
from typing import Any

import diffusers
import torch

from backends import _tasks
from backends._footprint import MemorySettings, footprint
from backends._gather import BATCHED
from router.capabilities import Capabilities, Defaults
from router.errors import LoadError
from router.geometry import Geometry
from router.model_folder import ModelFolder

MOST_ROWS = 16
"""Eight guided pictures. On two CPU cores 16 rows measured better than 8 and 12 (scripts/bench_lane)."""


_CUDA_OWN_BYTES = 600_000_000
"""An allowance for what CUDA and its libraries keep on a device for themselves."""


def capabilities(
    folder: ModelFolder,
    device: str,
    dtype: torch.dtype,
    *,
    memory: MemorySettings | None = None,
    notes: tuple[str, ...] = (),
) -> Capabilities:
    """What an instance of this folder can do on this device. Loads nothing."""
    kind = _pipeline_class(folder)
    vae, denoiser = folder.config("vae"), folder.config("unet") or folder.config("transformer")
    geometry = Geometry.of(denoiser, vae, patched="transformer" in folder.components())
    parameters = _tasks.parameters(kind)
    shows_latents = "callback_on_step_end" in parameters and vae.get("_class_name") == "AutoencoderKL"
    return Capabilities(
        family=_tasks.family(kind),
        pipeline=kind.__name__,
        tasks=frozenset(_tasks.tasks_of(kind, denoiser, vae)),
        defaults=Defaults(
            geometry.height, geometry.width, *_default_steps_and_guidance(parameters, denoiser)
        ),
        footprint=footprint(folder, dtype, memory or MemorySettings()),
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        size_multiple=geometry.size_multiple,
        min_side=geometry.min_side,
        schedulers=tuple(_tasks.schedulers(_scheduler(folder))),
        scheduler_steps=_tasks.step_ranges(_scheduler(folder)),
        negative_prompt="negative_prompt" in parameters,
        true_cfg="true_cfg_scale" in parameters,
        previews=shows_latents,
        latents=shows_latents,
        device_memory_bytes=_device_memory_bytes(device),
        notes=(*notes, *_ungathered(folder)),
    )


_UPSCALERS = ("StableDiffusionUpscalePipeline", "StableDiffusionLatentUpscalePipeline")
"""What would pass for text-to-image, and is not."""


def row_limit(found: Capabilities) -> int:
    """Rows of a run that the device's memory holds at the model's own size; 1 to `MOST_ROWS`."""
    if found.device_memory_bytes is None:
        return MOST_ROWS
    free_bytes = found.device_memory_bytes - found.footprint.weights_bytes
    pixels = found.defaults.height * found.defaults.width
    return min(MOST_ROWS, found.footprint.rows_within(free_bytes, pixels))


def _pipeline_class(folder: ModelFolder) -> Any:
    name = folder.index.get("_class_name")
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if kind is None:
        raise LoadError(
            f"The model's pipeline class {name!r} is not one of diffusers {diffusers.__version__}."
        )
    if name in _UPSCALERS:
        raise LoadError(
            f"A {name} makes pictures larger, which is not served by Diffusers here; configure a network with"
            " the backend `spandrel`."
        )
    return kind


def _default_steps_and_guidance(parameters: Any, denoiser: dict[str, Any]) -> tuple[int, float | None]:
    """What the pipeline's own signature says. A FLUX without guidance embedding has none to scale."""
    steps = int(parameters["num_inference_steps"].default)
    guidance = parameters.get("guidance_scale")
    if guidance is None or denoiser.get("guidance_embeds") is False:
        return steps, None
    return steps, float(guidance.default)


def _scheduler(folder: ModelFolder) -> Any:
    config = folder.config("scheduler")
    name = config.get("_class_name")
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if kind is None:
        raise LoadError(
            f"The model's scheduler class {name!r} is not one of diffusers {diffusers.__version__}."
        )
    return kind.from_config(config)


def _device_memory_bytes(device: str) -> int | None:
    if device.startswith("cuda"):
        total = int(torch.cuda.get_device_properties(device).total_memory)
        return max(0, total - _CUDA_OWN_BYTES)
    if device.startswith("cpu") and hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _ungathered(folder: ModelFolder) -> list[str]:
    """A note for each denoiser whose class shares no batch."""
    kinds = {name: kind for name, (_, kind) in folder.components().items() if name in ("unet", "transformer")}
    return [
        f"{kind} is not known to gather: its calls run one by one"
        for kind in kinds.values()
        if kind not in BATCHED
    ]
