"""DiffusersBackend: any Diffusers pipeline, from a folder, a single file or a hub id, run by torch."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
from pydantic import Field

from backends import _attention, _describe, _prompt_options, _shipped, _single_file, _speed, _tasks, _vae
from backends._adapters import Adapters
from backends._compiled import Compiled
from backends._device import device_of, torch_device
from backends._footprint import MemorySettings
from backends._gather import Gathering
from backends._loras import with_loras
from backends._options import read_options
from backends._pipeline import PipelineBackend
from backends._prompt_options import PromptOptions
from backends._quiet import quiet
from backends._speed import SpeedOptions
from backends._stand_in import MakesCalls
from backends._vae import DTYPES, VaeOptions
from backends._warm_up import warm_up
from router.backend import Lanes
from router.capabilities import Capabilities
from router.checkpoint import SUFFIXES
from router.config import InstanceConfig
from router.errors import ConfigError, LoadError
from router.lora_request import lora_set
from router.model_folder import ModelFolder
from router.request import GenerateRequest
from router.single_file import SingleFile, open_model
from router.types import Generated, OnEvent


class DiffusersOptions(PromptOptions, SpeedOptions, VaeOptions):
    """The settings of a Diffusers instance. What the pipeline or the machine has not is refused."""

    attention: str = "auto"
    """`auto`, `slicing`, or an attention back end's name as Diffusers knows it (`native`, `flash`, ...)."""
    offload: Literal["none", "model", "sequential"] = "none"
    """Moves modules to the accelerator only while they run. Then one picture at a time."""
    text_length: int | None = Field(default=None, ge=1, le=512)
    """Tokens that T5 reads (SD3, FLUX); `None` is the pipeline's own. Exports of the model have theirs."""
    loaded_loras: int = Field(default=4, ge=1, le=64)
    """LoRAs held at once; one more takes the place of the least recently used that nobody uses."""
    config: str | None = None
    """Of a single file: the folder of its configurations and tokenizers. `None` is the one beside it."""
    revision: str | None = None
    """Of a hub id."""
    local_files_only: bool = False
    """Never ask the hub."""


class DiffusersBackend(PipelineBackend):
    """One instance. Source: a folder with `model_index.json`, a checkpoint, `shipped:NAME`, or a hub id."""

    def __init__(self, instance: InstanceConfig, lanes: Lanes) -> None:
        super().__init__()
        self.name = instance.name
        self.options = _checked(read_options(DiffusersOptions, instance), instance)
        self.row_buckets = self.options.row_buckets
        self.one_at_a_time = self.options.offload != "none"
        self._instance = instance
        self._lanes = lanes
        self._folder: ModelFolder | None = None
        self._compiled: dict[str, Compiled] = {}

    async def probe(self) -> Capabilities:
        device = device_of(self._instance)
        dtype = _dtype(self._instance, device)
        if self.options.offload != "none" and device.startswith("cpu"):
            raise ConfigError(
                f"{self.name}: option `offload` is {self.options.offload!r}, but `device` is the CPU;"
                " drop one."
            )
        _speed.check_device(self.options, self.name, device, dtype)
        self.lane = self._lanes(device)
        return await asyncio.to_thread(self._describe, device, dtype)

    async def load(self) -> None:
        if self._folder is None:
            await self.probe()
        await super().load()

    def peak_bytes(self) -> int | None:
        device = torch.device(self.lane.name)
        return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None

    def text_length(self, request: GenerateRequest) -> int | None:
        return self.options.text_length

    async def generate(
        self, request: GenerateRequest, on_event: OnEvent, deadline_s: float | None
    ) -> Generated:
        async with self._adapters.held(lora_set(request)):
            return await super().generate(request, on_event, deadline_s)

    def _describe(self, device: str, dtype: torch.dtype) -> Capabilities:
        self._folder = open_model(self._find(), self.name, self.options.config, self.options.vae)
        self._folder.check()
        _vae.check(self.options, self._folder, self.name)
        self._device, self._dtype = torch_device(device), dtype
        is_unet = "unet" in self._folder.components()
        self._attention = _attention.choose(self.options.attention, device, self.name, unet=is_unet)
        found = _describe.capabilities(
            self._folder,
            device,
            dtype,
            memory=self._memory_settings(),
            notes=(self._attention.note, *_notes(self.options), *self._folder.notes()),
        )
        pictures = self.decode_row_limit
        self._vae = _vae.plan(self.options, self._folder, found, dtype, pictures)
        found = _vae.planned(found, self._vae, self._folder, pictures)
        self.row_limit = self._instance.row_limit or _describe.row_limit(found)
        self._check_text_length(found.pipeline)
        found = self._with_prompts(found)
        self._own_size = found.defaults.height, found.defaults.width
        return with_loras(found, self._folder, self._instance, self.options)

    def _with_prompts(self, found: Capabilities) -> Capabilities:
        encoding = self._encoding = _prompt_options.ability(found.family)
        _prompt_options.check(self.options, encoding, self.name)
        self.long_prompt, self.can_chunk = self.options.long_prompt, not encoding.lacking
        return dataclasses.replace(found, encoding=encoding)

    def _memory_settings(self) -> MemorySettings:
        return MemorySettings(
            offload=self.options.offload,
            vae_tiling=self.options.vae_tiling is True,
            decode_limit=self.decode_row_limit,
        )

    def _check_text_length(self, pipeline: str) -> None:
        length = self.options.text_length
        if length and "max_sequence_length" not in _tasks.parameters(getattr(diffusers, pipeline)):
            raise ConfigError(
                f"{self.name}: option `text_length` is {length}, but a {pipeline} has no T5; drop it."
            )

    def _find(self) -> Path:
        """The folder or file of the source; a hub id is fetched, its weights only as safetensors."""
        if not self._instance.source:
            raise ConfigError(
                f"{self.name}: `source` is missing; name a model folder, a checkpoint, a hub id or"
                " `shipped:shapes`."
            )
        source = _shipped.resolve(self._instance.source)
        if Path(source).exists():
            return Path(source)
        is_file = source.endswith(SUFFIXES)
        if is_file or source.count("/") != 1 or source.startswith((".", "/", "~")):
            kind = "checkpoint" if is_file else "model folder"
            raise LoadError(
                f"{self.name}: there is no {kind} {Path(source).name!r}; correct `source`.",
                instance=self.name,
            )
        try:
            return Path(
                diffusers.DiffusionPipeline.download(
                    source,
                    revision=self.options.revision,
                    local_files_only=self.options.local_files_only,
                    use_safetensors=True,
                )
            )
        except (OSError, ValueError) as exc:
            raise LoadError(
                f"{self.name}: the hub gave no model {source!r} ({type(exc).__name__});"
                " check the id and the connection, or name a local folder.",
                instance=self.name,
            ) from exc

    # On a loader thread.

    def read(self) -> Any:
        assert self._folder is not None
        self._folder.check()
        _prompt_options.prepare(self._encoding)
        given = {"vae": _vae.read(self._folder, self._vae.dtype)} if self._folder.vae else {}
        if isinstance(self._folder, SingleFile):
            return _single_file.read_pipeline(self._folder, self._dtype, given)
        dtypes = {"vae": self._vae.dtype, "default": self._dtype}
        with quiet():
            return diffusers.DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
                self._folder.folder, dtype=dtypes, use_safetensors=True, local_files_only=True, **given
            )

    # On the lane's thread.

    def place(self, pipeline: Any) -> None:
        _attention.apply(self._attention, pipeline, self.name)
        _vae.apply(self._vae, pipeline)
        if self._vae.is_own and self._device != "mps":
            _vae.keep_in(self._vae.dtype, pipeline)
        if self.options.offload == "model":
            pipeline.enable_model_cpu_offload(device=self._device)
        elif self.options.offload == "sequential":
            pipeline.enable_sequential_cpu_offload(device=self._device)
        else:
            pipeline.to(self._device)
        _speed.apply(self.options, pipeline, self.name)
        self._adapters = Adapters(
            self.name, self.lane, pipeline, self._instance.lora_folders, self.options.loaded_loras
        )

    def calls_of(self, name: str, gathering: Gathering, request: GenerateRequest) -> MakesCalls:
        return self._adapters.calls_of(name, gathering, lora_set(request))

    def compiled(self, name: str, module: Any) -> Any:
        compiled = _speed.compiled(self.options, module, self.name)
        if compiled is not None:
            self._compiled[name] = compiled
        return compiled

    def warm_up(self) -> None:
        for each in self._compiled.values():
            each.warming = True
        if self._compiled:
            warm_up(self, self._compiled, self.options.compile_sizes or [self._own_size])
        for each in self._compiled.values():
            each.warming = False


def _dtype(instance: InstanceConfig, device: str) -> torch.dtype:
    name = instance.dtype
    if name == "auto":
        return torch.float32 if device.startswith("cpu") else torch.float16
    if name not in DTYPES:
        raise ConfigError(f"{instance.name}: `dtype` is {name!r}; use `auto` or one of {', '.join(DTYPES)}.")
    if name == "float16" and device.startswith("cpu"):
        raise ConfigError(f"{instance.name}: `dtype` float16 does not run on a CPU; use float32 or bfloat16.")
    return DTYPES[name]


def _checked(options: DiffusersOptions, instance: InstanceConfig) -> DiffusersOptions:
    """What cannot go together is said before anything is loaded."""
    options = _speed.checked(options, instance.name)
    if options.compile and options.offload != "none":
        raise ConfigError(f"{instance.name}: options `compile` and `offload` do not go together; drop one.")
    return options


def _notes(options: DiffusersOptions) -> tuple[str, ...]:
    """What an operator should see of the settings."""
    notes = [*_speed.notes(options)]
    if options.offload != "none":
        notes.append(f"offload {options.offload}: one picture at a time")
    return tuple(notes)
