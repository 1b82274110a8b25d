"""OnnxRuntimeBackend: an exported folder run by ONNX Runtime or OpenVINO under Diffusers' own pipelines."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import torch

from backends import _describe
from backends._device import torch_device
from backends._export_checks import check_files, check_sizes, check_verified, check_version
from backends._export_folder import ExportFolder
from backends._onnx_pipeline import read_pipeline
from backends._options import read_options
from backends._pipeline import PipelineBackend
from backends._runtimes import RuntimeOptions, device_for, make_runtime
from backends._session import Runtime
from router.backend import Lanes
from router.capabilities import Capabilities
from router.config import InstanceConfig
from router.errors import ConfigError, LoadError
from router.lora import LoraAbility
from router.prompt_ability import PromptAbility
from router.request import GenerateRequest


class OnnxRuntimeOptions(RuntimeOptions):
    """The settings of an instance."""

    profiles: tuple[str, ...] = ()
    """Only these profiles of the export are loaded; empty is all."""
    unverified: bool = False
    """Serve an export that no parity gate has passed, or none for this runtime."""


class OnnxRuntimeBackend(PipelineBackend):
    """One instance. Source: a folder that `python -m export.to_onnx` wrote, or Optimum."""

    text_row_limit = 1
    decode_row_limit = 1
    options_kind: type[OnnxRuntimeOptions] = OnnxRuntimeOptions

    def __init__(self, instance: InstanceConfig, lanes: Lanes) -> None:
        super().__init__()
        self.name = instance.name
        self.options = read_options(self.options_kind, instance)
        self._instance = instance
        self._lanes = lanes
        self._folder: ExportFolder | None = None
        self._runtime: Runtime | None = None

    async def probe(self) -> Capabilities:
        device = await asyncio.to_thread(device_for, self.options, self._instance)
        self.lane = self._lanes(device)
        return await asyncio.to_thread(self._describe, device)

    async def load(self) -> None:
        if self._folder is None:
            await self.probe()
        await super().load()

    def text_length(self, request: GenerateRequest) -> int | None:
        assert self._folder is not None
        return self._folder.text_length(request.height, request.width)

    def make_runtime(self, device: str) -> Runtime:
        """What opens the graphs."""
        return make_runtime(self.options, self.name, device, self.lane.threads or torch.get_num_threads())

    def _describe(self, device: str) -> Capabilities:
        self._device = torch.device(torch_device(device))
        runtime = self.make_runtime(device)
        folder = ExportFolder(self.find(), self.name, self.options.profiles, self._instance.row_limit)
        check_version(folder, self.options.runtime, runtime.version)
        check_sizes(folder)
        if not self.options.unverified:
            check_verified(folder, self.options.runtime)
        found = self._capabilities(folder, runtime, device)
        buckets = [max(profile.row_buckets) for profile in folder.profiles if not folder.is_dynamic]
        self.row_limit = max(buckets, default=self._instance.row_limit or _describe.row_limit(found))
        self.fixed_sizes = bool(folder.profiles)
        self._folder, self._runtime = folder, runtime
        return found

    def _capabilities(self, folder: ExportFolder, runtime: Runtime, device: str) -> Capabilities:
        dtype = self._dtype(folder, runtime)
        found = _describe.capabilities(
            folder, device, getattr(torch, dtype), notes=(*runtime.notes, *folder.notes())
        )
        tasks = found.tasks if folder.has_encoder else found.tasks & {"text-to-image"}
        weights = int(folder.weights_bytes() * runtime.memory_factor)
        return dataclasses.replace(
            found,
            loras=LoraAbility(none="it applies no LoRA: its graphs are as they were exported."),
            tasks=tasks,
            profiles=folder.profiles,
            encoding=PromptAbility("its graphs take a text of fixed length, without a mask"),
            defaults=folder.with_size(found.defaults),
            footprint=dataclasses.replace(found.footprint, weights_bytes=weights),
            previews=found.previews and folder.has_encoder,
        )

    def _dtype(self, folder: ExportFolder, runtime: Runtime) -> str:
        """The export's. Another one in the configuration is a mistake: graphs are of one dtype for ever."""
        own = folder.profiles[0].dtype if folder.profiles else "float32"
        if self._instance.dtype not in ("auto", own):
            raise ConfigError(
                f"{self.name}: `dtype` is {self._instance.dtype!r}, but the export is in {own};"
                " use `auto`, or export the model in that dtype."
            )
        if own not in runtime.dtypes:
            raise LoadError(
                f"{self.name}: the export is in {own}, which {self.options.runtime} does not run on"
                f" {self._device.type}; export the model in {' or '.join(runtime.dtypes)}.",
                instance=self.name,
            )
        return own

    def find(self) -> Path:
        """The folder of the export. Raises `ConfigError`, `LoadError` where there is none."""
        if not self._instance.source:
            raise ConfigError(f"{self.name}: `source` is missing; name the folder of an export.")
        folder = Path(self._instance.source)
        if not folder.is_dir():
            raise LoadError(
                f"{self.name}: there is no folder {folder.name!r}; make it with `python -m export.to_onnx`,"
                " or correct `source`.",
                instance=self.name,
            )
        return folder

    # On a loader thread.

    def read(self) -> Any:
        assert self._folder is not None
        assert self._runtime is not None
        check_files(self._folder)
        return read_pipeline(self._folder, self._runtime, self._device)

    # On the lane's thread.

    def place(self, pipeline: Any) -> None:
        """Nothing is left to do: a session is where its runtime has opened it."""
