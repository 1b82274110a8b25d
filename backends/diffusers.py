"""DiffusersBackend: any Diffusers pipeline, from a folder, a single file or a hub id, run by torch."""

from __future__ import annotations

import asyncio
import dataclasses
from functools import partial
from typing import Any

import diffusers
import torch
from pydantic import Field

from backends import (
    _attention,
    _decode_stream,
    _describe,
    _dtype,
    _offload,
    _prompt_options,
    _refiner,
    _single_file,
    _speed,
    _tasks,
    _vae,
)
from backends._adapters import Adapters
from backends._conditions import conditions
from backends._device import device_of, torch_device
from backends._footprint import MemorySettings, cell_pixels
from backends._gather import Gathering
from backends._gauge import Gauge, gauge_of, gauged
from backends._headroom import Room, cuda_free_bytes, headroom
from backends._loras import with_loras
from backends._offload import OffloadOptions
from backends._options import read_options
from backends._pipeline import PipelineBackend
from backends._prompt_options import PromptOptions
from backends._quicker import Quicker
from backends._quiet import quiet
from backends._refiner import Refiner, RefinerFolder, RefinerOptions
from backends._source import find_source
from backends._speed import SpeedOptions
from backends._stand_in import MakesCalls
from backends._traced import Traced
from backends._vae import VaeOptions
from router.backend import Lanes
from router.capabilities import Capabilities
from router.config import InstanceConfig
from router.errors import ConfigError
from router.footprint import Workspace
from router.lora_request import lora_set
from router.model_folder import ModelFolder
from router.request import GenerateRequest
from router.single_file import SingleFile, open_model
from router.types import Generated, OnEvent

_MATTERS = ("attention", "offload", "vae_dtype", "vae_slicing", "refiner", *SpeedOptions.model_fields)
"""The options that change what a run takes."""


class DiffusersOptions(PromptOptions, SpeedOptions, VaeOptions, OffloadOptions, RefinerOptions):
    """The settings of a Diffusers instance. What the pipeline or the machine has not is refused."""

    attention: str = "auto"
    """`auto`, `slicing`, or an attention back end's name as Diffusers knows it (`native`, `flash`, ...).
    `fastest` is `auto` with PyTorch's kernels measured at load."""
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
        self.adapters = Adapters(self.name, instance.lora_folders, self.options.loaded_loras)
        self.row_buckets = self.options.row_buckets
        self.one_at_a_time = self.options.offload != "none"
        self._instance = instance
        self._lanes = lanes
        self._folder: ModelFolder | None = None
        self._refiner_folder: RefinerFolder | None = None
        self._refiner: Any = None
        fastest = self.options.attention == "fastest"
        self._quicker = Quicker(self.options, self.name, race_attention=fastest)
        self._races: tuple[str, ...] = ()
        """Which attention was the fastest at load, for whoever probes from then on."""
        self._gauge: Gauge | None = None

    async def probe(self) -> Capabilities:
        device = device_of(self._instance)
        _offload.check_device(self.options, self.name, device)
        self.lane = self._lanes(device)
        return await asyncio.to_thread(self._describe, device)

    async def load(self) -> None:
        if self._folder is None:
            await self.probe()
        await super().load()

    def peak_bytes(self) -> int | None:
        if self._gauge:
            return self._gauge.peak_bytes
        device = torch.device(self.lane.name)
        return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None

    def chosen(self) -> tuple[tuple[str, str], ...]:
        return tuple(self._quicker.choices.items())

    def learned(self, found: Capabilities) -> Capabilities:
        self._quicker.choices = dict(found.choices)
        self.row_limit = self._instance.row_limit or _describe.row_limit(found)
        footprint = dataclasses.replace(found.footprint, row_limit=self.row_limit)
        return dataclasses.replace(found, footprint=footprint)

    def workspace(self) -> Workspace | None:
        return self._gauge.workspace if self._gauge else None

    def text_length(self, request: GenerateRequest) -> int | None:
        return self.options.text_length

    async def generate(
        self, request: GenerateRequest, on_event: OnEvent, deadline_s: float | None
    ) -> Generated:
        async with self.adapters.held(lora_set(request)):
            return await super().generate(request, on_event, deadline_s)

    def _describe(self, device: str) -> Capabilities:
        options = self.options
        place = find_source(self._instance, options.revision, local_files_only=options.local_files_only)
        self._folder = open_model(place, self.name, options.config, options.vae)
        self._folder.check()
        dtype = _dtype.dtype_of(self._instance, device, self._folder)
        _speed.check_device(options, self.name, device, dtype)
        _vae.check(options, self._folder, self.name)
        if options.decode_stream:
            _decode_stream.check(self._folder, self.name)
        self._device, self._dtype = torch_device(device), dtype
        is_unet = "unet" in self._folder.components()
        self._attention = _attention.choose(self.options.attention, device, self.name, unet=is_unet)
        found = _describe.capabilities(
            self._folder,
            device,
            dtype,
            memory=self._memory_settings(self._folder, dtype),
            notes=(self._attention.note, *self._races, *self._notes(dtype), *self._folder.notes()),
        )
        pictures = self.decode_row_limit
        self._vae = _vae.plan(self.options, self._folder, found, dtype, pictures)
        found = _vae.planned(found, self._vae, self._folder, pictures)
        self._check_text_length(found.pipeline)
        found = self._with_prompts(found)
        self._own_size = found.defaults.height, found.defaults.width
        if options.refiner:
            self._refiner_folder = _refiner.open_refiner(
                options.refiner, self._folder, self.name, options.offload
            )
            found = _refiner.refined(found, self._refiner_folder, self._folder, dtype)
        found = self._with_memory(found, self._folder, dtype)
        return with_loras(found, self._folder, self._instance, self.options)

    def _with_memory(self, found: Capabilities, folder: ModelFolder, dtype: torch.dtype) -> Capabilities:
        """With the rows of a run that the device holds, and what is measured of it holds under."""
        self._cell_pixels, self._tile_pixels = cell_pixels(folder), found.footprint.decode_tile_pixels
        said = {name: getattr(self.options, name) for name in _MATTERS} | {"tile": self._tile_pixels}
        held_under = conditions(folder, found.device, dtype, said)
        return self.learned(dataclasses.replace(found, conditions=held_under))

    def _with_prompts(self, found: Capabilities) -> Capabilities:
        encoding = self._encoding = _prompt_options.ability(found.family)
        _prompt_options.check(self.options, encoding, self.name)
        self.long_prompt, self.can_chunk = self.options.long_prompt, not encoding.lacking
        return dataclasses.replace(found, encoding=encoding)

    def _memory_settings(self, folder: ModelFolder, dtype: torch.dtype) -> MemorySettings:
        return MemorySettings(
            offload=self.options.offload,
            vae_dtype=_vae.vae_dtype(self.options, folder, dtype),
            vae_tiling=self.options.vae_tiling is True,
            decode_limit=self.decode_row_limit,
            overlapped=self.options.decode_stream,
        )

    def _notes(self, dtype: torch.dtype) -> tuple[str, ...]:
        """What an operator should see of the settings."""
        assert self._folder is not None
        notes = (*_dtype.notes(dtype, self._folder), *_speed.notes(self.options))
        return (*notes, *_offload.notes(self.options))

    def _check_text_length(self, pipeline: str) -> None:
        length = self.options.text_length
        if length and "max_sequence_length" not in _tasks.parameters(getattr(diffusers, pipeline)):
            raise ConfigError(
                f"{self.name}: option `text_length` is {length}, but a {pipeline} has no T5; drop it."
            )

    # On a loader thread.

    def read(self) -> Any:
        pipeline = self._read()
        if self._refiner_folder:
            self._refiner = _refiner.read(self._refiner_folder, pipeline, self._dtype)
        return pipeline

    def _read(self) -> Any:
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
        _offload.place(self.options, pipeline, self._device)
        offloaded = self.options.offload != "none"
        self._gauge = gauge_of(self._device, self._cell_pixels, self._tile_pixels, offloaded=offloaded)
        if self._gauge:
            pipeline.vae.decode = self._gauge.around(pipeline.vae.decode, "decode")
        _speed.apply(self.options, pipeline, self.name)
        if self.options.decode_stream:
            self.decode_streams = _decode_stream.CudaStreams(self._device)
        if self._refiner_folder:
            self._refiner = self._placed_refiner(self._refiner)
        self.adapters.place(pipeline, self.lane)

    def _placed_refiner(self, pipeline: Any) -> Refiner:
        _attention.apply(self._attention, pipeline, self.name)
        pipeline.unet.to(self._device)
        measured = self._gauge.around(pipeline.unet, "denoise") if self._gauge else None
        pipeline.__class__ = _tasks.on_device(type(pipeline), torch.device(self._device))
        return Refiner(pipeline, Gathering(pipeline.unet, row_limit=self.row_limit, compiled=measured))

    def _let_go(self) -> None:
        self._refiner = None
        self.adapters.let_go()
        super()._let_go()

    def run(self, pipeline: Any, arguments: dict[str, Any], request: GenerateRequest) -> Any:
        start = request.refiner_start
        if start is None or start == 1:
            return super().run(pipeline, arguments, request)
        refiner = self._refiner.for_task(pipeline, request, self.lane, never_waits=self.never_waits)
        return _refiner.refine(pipeline, refiner, arguments, self.prompts(request, refiner), start)

    def calls_of(self, name: str, gathering: Gathering, request: GenerateRequest) -> MakesCalls:
        return self.adapters.calls_of(name, gathering, lora_set(request))

    def compiled(self, name: str, module: Any) -> Any:
        if self._is_traced:
            return Traced(module)
        return gauged(self._gauge, module, self._quicker.of(name, module))

    def decoder(self, vae: Any) -> Any:
        return Traced(vae, "decode") if self._is_traced else None

    @property
    def _is_traced(self) -> bool:
        """Whether short runs are played from a trace: nothing else stands in the modules' places."""
        other = self._gauge is not None or self.options.attention == "fastest" or self.one_at_a_time
        return not other and _speed.is_traced(self.options, self._device)

    def room(self, name: str) -> Room | None:
        return headroom(self._gauge, partial(cuda_free_bytes, self._device)) if self._gauge else None

    def warm_up(self) -> None:
        self._races = self._quicker.warm_up(self, self._own_size)


def _checked(options: DiffusersOptions, instance: InstanceConfig) -> DiffusersOptions:
    """What cannot go together is said before anything is loaded."""
    options = _speed.checked(options, instance.name)
    _offload.check(options, instance.name)
    if options.torchscript and (options.offload != "none" or options.attention == "fastest"):
        raise ConfigError(
            f"{instance.name}: option `torchscript` has no effect beside `offload` and `attention` 'fastest';"
            " drop one of the two."
        )
    return options
