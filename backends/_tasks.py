"""Which pipeline class does which task, and which schedulers go with a model: Diffusers' own tables."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from diffusers.pipelines import auto_pipeline
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

from router.schedulers import class_name, find_scheduler
from router.types import Task

_TABLES: dict[Task, Mapping[str, type]] = {
    "text-to-image": auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
    "image-to-image": auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    "inpainting": auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
}

_OTHER_PARAMETRISATION = "EDMEulerScheduler"
"""Listed by Diffusers as compatible, but made for models preconditioned as in EDM."""

_UNUSUAL = {"PNDM", "LCM"}
"""Schedulers that do not take any number of steps up to those of the training."""

_FEWEST_TRIED = 10

_UPCASTING = ("stable-diffusion-xl", "kolors")
"""Families whose pipelines cast a VAE with `force_upcast` from float16 to float32 and back."""


def family(kind: type) -> str:
    """Diffusers' name of the pipeline's family (`stable-diffusion-xl`, `flux`), or the class's name."""
    for table in _TABLES.values():
        for name, candidate in table.items():
            if candidate is kind:
                return name
    return kind.__name__


def upcasts_vae(kind: type) -> bool:
    """Whether this pipeline class heeds its VAE's `force_upcast`."""
    return family(kind) in _UPCASTING


def upcasts(pipeline: Any) -> bool:
    """Whether the pipeline casts its VAE to float32 around decoding; a neighbour must not see that."""
    vae, narrow = pipeline.vae, pipeline.vae.dtype == torch.float16
    return narrow and upcasts_vae(type(pipeline)) and getattr(vae.config, "force_upcast", False)


def forget_needless_upcast(pipeline: Any) -> None:
    """A VAE that is float32 already need not be cast to it at every picture, with a warning each time."""
    vae = getattr(pipeline, "vae", None)
    if vae is not None and vae.dtype == torch.float32 and getattr(vae.config, "force_upcast", False):
        vae.register_to_config(force_upcast=False)


def configs(pipeline: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The configurations of the denoiser and of the VAE; empty where the pipeline has none."""
    modules = (getattr(pipeline, name, None) for name in ("unet", "vae"))
    denoiser, vae = (getattr(module, "config", {}) for module in modules)
    return denoiser, vae


def pipeline_classes(kind: type) -> dict[Task, type]:
    """Task -> class, for all tasks that this pipeline's components can do."""
    name = family(kind)
    found = {task: table[name] for task, table in _TABLES.items() if name in table}
    return found or {"text-to-image": kind}


def tasks_of(kind: type, denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> dict[Task, type]:
    """The same, for a model with these configurations.

    A UNet that takes the mask and the masked picture beside the latents can only inpaint.
    """
    classes = pipeline_classes(kind)
    if denoiser.get("in_channels") != 2 * vae.get("latent_channels", 0) + 1:
        return classes
    return {task: kind for task, kind in classes.items() if task == "inpainting"}


def with_components_of(kind: type, pipeline: Any) -> Any:
    """A pipeline of another class over the very same modules; nothing is copied or cast."""
    if type(pipeline) is kind:
        return pipeline
    wanted = inspect.signature(kind).parameters
    known = {**dict(pipeline.config), **pipeline.components}
    made = kind(**{name: value for name, value in known.items() if name in wanted})
    made.set_progress_bar_config(disable=True)
    return made


def parameters(kind: Any) -> Mapping[str, inspect.Parameter]:
    """What this pipeline class can be asked: the parameters of its `__call__`."""
    return inspect.signature(kind.__call__).parameters


def on_device(kind: type, device: torch.device) -> type:
    """The same pipeline class, knowing its device.

    Diffusers finds out by walking through all modules, several times a picture: a tenth of the time
    of a small model. Not for offloaded pipelines, whose modules move.
    """
    return type(kind.__name__, (kind,), {"_execution_device": device, "device": device})


def schedulers(own: Any) -> dict[str, type]:
    """Name without `Scheduler` -> class, the model's own first, then the others that can be made here."""
    candidates = {type(own)} | set(own.compatibles)
    if type(own).__name__ in KarrasDiffusionSchedulers.__members__:
        candidates.add(diffusers.LCMScheduler)
    names = sorted(kind.__name__ for kind in candidates - {type(own)})
    offered = {type(own).__name__: type(own)}
    for name in names:
        kind = getattr(diffusers, name)
        if name != _OTHER_PARAMETRISATION and _can_be_made(kind):
            offered[name] = kind
    return {class_name(name): kind for name, kind in offered.items()}


def new_scheduler(name: str | None, own: Any, offered: Mapping[str, type]) -> Any:
    """A scheduler of that name for one picture, configured as the model's own; `None` is a copy of it."""
    named = find_scheduler(name, tuple(offered)) if name else None
    if named is None or (offered[named.kind] is type(own) and not named.settings):
        return copy.deepcopy(own)
    kind: Any = offered[named.kind]
    return kind.from_config(own.config, **named.settings)


def step_ranges(own: Any) -> dict[str, tuple[int, int]]:
    """Scheduler -> the fewest and the most steps that it takes, with the model's own configuration.

    Few are too few for some multistep starts (PNDM's); a distilled schedule (LCM's) has no more than it
    was made of, and no schedule more than it was trained with. The others need not be made to know it,
    which takes some of them half a second.
    """
    offered, most = schedulers(own), int(own.config.num_train_timesteps)
    ranges = dict.fromkeys(offered, (1, most))
    for name in _UNUSUAL & offered.keys():
        made = new_scheduler(name, own, offered)
        fewest = next((steps for steps in range(1, _FEWEST_TRIED) if _takes(made, steps)), _FEWEST_TRIED)
        ranges[name] = fewest, int(made.config.get("original_inference_steps") or most)
    return ranges


def _takes(scheduler: Any, steps: int) -> bool:
    try:
        scheduler.set_timesteps(steps)
    except (ValueError, IndexError):
        return False
    return True


def _can_be_made(kind: Any) -> bool:
    """Some schedulers need a library (scipy, torchsde) that is not there: then Diffusers has a dummy."""
    return not hasattr(kind, "_backends")
