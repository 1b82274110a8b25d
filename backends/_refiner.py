"""The refiner of Stable Diffusion XL: a second denoiser that makes the last steps of a picture.

The base stops at a share of the schedule and hands over its latents, as in Diffusers' documentation
("ensemble of expert denoisers"). Second text encoder, its tokenizer and the VAE are the base's.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from pydantic import BaseModel, ConfigDict

from backends import _tasks
from backends._gather import Gathering
from backends._quiet import quiet
from backends._stand_in import StandIn
from backends._timesteps import keep_on_cpu
from router.capabilities import Capabilities
from router.errors import ConfigError, InvalidRequestError, LoadError
from router.lane import Lane
from router.model_folder import ModelFolder
from router.request import GenerateRequest

_BASE = "StableDiffusionXLPipeline"
_REFINER = "StableDiffusionXLImg2ImgPipeline"
_OWN_PARTS = ("scheduler", "unet")
_FLAGS = ("requires_aesthetics_score", "force_zeros_for_empty_prompt")


class RefinerOptions(BaseModel):
    """The settings of an instance's refiner."""

    model_config = ConfigDict(extra="forbid")

    refiner: str | None = None
    """The folder of a Stable Diffusion XL refiner; requests start it with `refiner_start`."""


class RefinerFolder(ModelFolder):
    """What is read of it: the rest is the base's, and need not be there."""

    def components(self) -> dict[str, tuple[str, str]]:
        return {name: kind for name, kind in super().components().items() if name in _OWN_PARTS}


class Refiner:
    """On the lane: the refiner's pipeline, and the gathering of its denoiser's calls."""

    def __init__(self, pipeline: Any, gathering: Gathering) -> None:
        self._pipeline = pipeline
        self._gathering = gathering

    def for_task(self, base: Any, request: GenerateRequest, lane: Lane, *, never_waits: bool = False) -> Any:
        """Its pipeline as a task's own, over the stand-ins that the task's base has."""
        pipeline = copy.copy(self._pipeline)
        own = pipeline.__dict__
        scheduler = _tasks.new_scheduler(
            request.scheduler, pipeline.scheduler, _tasks.schedulers(pipeline.scheduler)
        )
        own["scheduler"] = keep_on_cpu(scheduler) if never_waits else scheduler
        own["unet"] = StandIn(own["unet"], self._gathering, lane, share=not request.reproducible)
        own |= {name: getattr(base, name) for name in ("text_encoder_2", "tokenizer_2", "vae")}
        return pipeline


def open_refiner(place: str, base: ModelFolder, instance: str, offload: str) -> RefinerFolder:
    """The refiner for this model. Raises `ConfigError`, `LoadError` before anything is loaded."""
    if base.index.get("_class_name") != _BASE:
        raise ConfigError(
            f"{instance}: option `refiner` is for Stable Diffusion XL, and the model is a"
            f" {base.index.get('_class_name')}; drop it."
        )
    if offload != "none":
        raise ConfigError(f"{instance}: options `refiner` and `offload` do not go together; drop one.")
    if not Path(place).expanduser().is_dir():
        raise LoadError(
            f"{instance}: option `refiner` is {Path(place).name!r}, which is no folder; name the refiner's"
            " folder in Diffusers' layout.",
            instance=instance,
        )
    folder = RefinerFolder(Path(place).expanduser(), instance)
    folder.check()
    _check_fits(folder, base, instance)
    return folder


def refined(
    found: Capabilities, folder: RefinerFolder, base: ModelFolder, dtype: torch.dtype
) -> Capabilities:
    """The capabilities with a refiner's: its weights lie beside the base's, its rows may be larger."""
    channels = [each.config("unet")["block_out_channels"][0] for each in (folder, base)]
    footprint = found.footprint
    rows = math.ceil(footprint.row_bytes_per_pixel * max(1, channels[0] / channels[1]))
    weights = footprint.weights_bytes + folder.parameters() * dtype.itemsize
    return dataclasses.replace(
        found,
        refiner=True,
        notes=(*found.notes, f"refiner {folder.folder.name}"),
        footprint=dataclasses.replace(footprint, weights_bytes=weights, row_bytes_per_pixel=rows),
    )


def read(folder: RefinerFolder, base: Any, dtype: torch.dtype) -> Any:
    """Its pipeline, with what it shares with the base's. Blocking; for a loader thread."""
    unet_kind: Any = diffusers.UNet2DConditionModel
    kind: Any = diffusers.StableDiffusionXLImg2ImgPipeline
    with quiet():
        unet = unet_kind.from_pretrained(
            folder.folder / "unet", torch_dtype=dtype, use_safetensors=True, local_files_only=True
        )
    config = folder.config("scheduler")
    pipeline = kind(
        vae=base.vae,
        text_encoder=None,
        text_encoder_2=base.text_encoder_2,
        tokenizer=None,
        tokenizer_2=base.tokenizer_2,
        unet=unet,
        scheduler=getattr(diffusers, config["_class_name"]).from_config(config),
        add_watermarker=False,
        **{flag: folder.index[flag] for flag in _FLAGS if flag in folder.index},
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def refine(
    base: Any, refiner: Any, arguments: Mapping[str, Any], prompts: Mapping[str, Any], start: float
) -> Any:
    """Both stages as one call: the output of the refiner. `arguments` are the base's."""
    steps = arguments["num_inference_steps"]
    first, second = split(base.scheduler, refiner.scheduler, steps, start)
    base.__dict__["steps_around"], refiner.__dict__["steps_around"] = (0, second), (first, 0)
    latents = base(**{**arguments, "denoising_end": start, "output_type": "latent"}).images
    shared = ("num_inference_steps", "guidance_scale", "generator", "output_type", "callback_on_step_end")
    same = {name: arguments[name] for name in shared if name in arguments}
    return refiner(image=latents, denoising_start=start, **same, **prompts)


def split(base: Any, refiner: Any, steps: int, start: float) -> tuple[int, int]:
    """Steps of each stage, counted as the pipelines do. Raises `InvalidRequestError` where one has none."""
    counts = []
    for scheduler, is_first in ((copy.deepcopy(base), True), (copy.deepcopy(refiner), False)):
        scheduler.set_timesteps(steps)
        trained = scheduler.config.num_train_timesteps
        cutoff = round(trained - start * trained)
        count = sum((timestep >= cutoff) == is_first for timestep in scheduler.timesteps.tolist())
        if not is_first and scheduler.order == 2 and count and count % 2 == 0:
            count += 1  # the pipeline begins with both halves of a step that was cut in two
        counts.append(math.ceil(count / scheduler.order))
    if 0 in counts:
        stage, cure = ("model", "raise") if counts[0] == 0 else ("refiner", "lower")
        raise InvalidRequestError(
            f"`refiner_start` {start} leaves none of the {steps} `num_inference_steps` to the {stage};"
            f" {cure} it, or take more steps.",
            param="refiner_start",
        )
    return counts[0], counts[1]


def _check_fits(folder: RefinerFolder, base: ModelFolder, instance: str) -> None:
    unet = folder.config("unet")
    width, text = unet.get("cross_attention_dim"), base.config("text_encoder_2").get("hidden_size")
    wrong = ""
    if folder.index.get("_class_name") != _REFINER:
        wrong = f"is a {folder.index.get('_class_name')}, and a refiner is a {_REFINER}"
    elif width != text:
        wrong = f"reads text of width {width}, and the model's second encoder writes {text}"
    elif unet.get("in_channels") != base.config("unet").get("in_channels"):
        wrong = f"works on {unet.get('in_channels')} latent channels, and the model does not"
    if wrong:
        raise LoadError(
            f"{instance}: option `refiner`: {folder.folder.name!r} {wrong}; name the refiner of this model.",
            instance=instance,
        )
