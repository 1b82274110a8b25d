"""PipelineBackend: one Diffusers pipeline, called by many requests at once, as tasks of a lane.

Each picture gets a shallow copy of the pipeline with a scheduler of its own, and stand-ins where the
heavy modules stood; everything else of the pipeline runs unmodified and undisturbed. What the modules
are (torch, ONNX Runtime sessions) and how they are read is the affair of who inherits.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any

import torch

from backends import _allocator, _preview, _tasks
from backends._building import BUILDING
from backends._decode_stream import Decoding, Streams, TaskCalls
from backends._device import prepare_thread
from backends._errors import as_load_error, forget_frames, losses_heard
from backends._gather import Gathering, batched_arguments
from backends._headroom import Room
from backends._lane import Fetch, LaneBackend, Report, WithLatents
from backends._latents import LastLatents, unpacked
from backends._on_its_way import OnItsWay
from backends._pictures import only_image, to_pil
from backends._prompt import LongPrompt, prompt_arguments
from backends._stand_in import MakesCalls, StandIn
from backends._steps import StepEnd
from backends._thread import on_a_thread_of_its_own
from backends._timesteps import keep_on_cpu
from router.errors import BackendUnavailableError, RouterError
from router.request import GenerateRequest
from router.types import RawImage, Task

DENOISERS = ("unet", "transformer", "controlnet")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


class PipelineBackend(LaneBackend):
    """Owns the pipelines of one instance, one for each task, all over the same modules."""

    row_limit: int = 16
    text_row_limit: int = 16
    decode_row_limit: int = 4
    """Pictures decoded in one run, so that a new arrival waits for a few pictures and not for sixteen."""
    row_buckets: tuple[int, ...] = ()
    one_at_a_time: bool = False
    """For modules that change their own state from call to call: offload hooks, stateful caches."""
    long_prompt: LongPrompt = "refuse"
    """What becomes of a prompt beyond the text window, where the request does not say."""
    can_chunk: bool = False
    never_waits: bool = False
    """Whether timesteps stay on the CPU and pictures come by and by, so that a GPU is waited for nowhere."""
    decode_streams: Streams | None = None
    """What decodes pictures beside the denoiser's runs; `None` decodes them between these."""
    fixed_sizes: bool = False
    """For modules that were made for few sizes: nothing of another size is asked of them."""

    def __init__(self) -> None:
        self._pipelines: dict[Task, Any] = {}
        self._parameters: dict[Task, Mapping[str, inspect.Parameter]] = {}
        self._gatherings: dict[str, Gathering] = {}
        self._schedulers: dict[str, Any] = {}
        self._rgb: torch.Tensor | None = None
        self._vae_dtype: torch.dtype | None = None

    @abstractmethod
    def read(self) -> Any:
        """Read the pipeline's files. Blocking; runs on a loader thread, takes no device memory."""

    @abstractmethod
    def place(self, pipeline: Any) -> None:
        """Bring the pipeline onto the device. Blocking; runs on the lane's thread."""

    def compiled(self, name: str, module: Any) -> Any:
        """What runs in the place of this denoiser; `None` is the module itself."""
        return None

    def decoder(self, vae: Any) -> Any:
        """What runs in the place of the VAE's `decode`; `None` is the method itself."""
        return None

    def room(self, name: str) -> Room | None:
        """What knows for how many rows of this denoiser there is memory at a moment."""
        return None

    def calls_of(self, name: str, gathering: Gathering, request: GenerateRequest) -> MakesCalls:
        """What makes the calls of this module for one request."""
        return gathering

    def warm_up(self) -> None:
        """Do what need be done once for each shape. Runs on the lane's thread, at the end of loading."""

    def text_length(self, request: GenerateRequest) -> int | None:
        """Tokens that a T5 encoder reads of this request; `None` is the pipeline's own default."""
        return None

    async def load(self) -> None:
        try:
            await self._load()
        except RouterError:
            raise
        except Exception as exc:
            raise as_load_error(exc, self.name) from exc

    async def _load(self) -> None:
        pipeline = await on_a_thread_of_its_own(self._read_alone)
        try:
            await self.lane.run(lambda: self._make_ready_heard(pipeline))
        except BaseException as exc:  # cancelled, too: nobody knows then that something was loaded
            forget_frames(exc)
            del pipeline
            await self.unload()
            raise

    def _read_alone(self) -> Any:
        with BUILDING:
            return self.read()

    async def unload(self) -> None:
        try:
            await self.lane.run(self._let_go)
        except BackendUnavailableError:  # the lane is lost or closed, and its memory must go all the same
            await asyncio.to_thread(self._let_go)

    def alone(self) -> Hashable | None:
        return id(self) if self.one_at_a_time else None

    def picture(self, request: GenerateRequest, seed: int, report: Report) -> RawImage | WithLatents | Fetch:
        pipeline = self._pipeline_of(request)
        arguments = self._arguments(request, seed, pipeline, report)
        step_end: StepEnd | None = arguments.get("callback_on_step_end")
        last = None
        if request.latents and step_end is not None:
            last = arguments["callback_on_step_end"] = LastLatents(step_end)
        try:
            made = only_image(self.run(pipeline, arguments, request))

            def fetch() -> RawImage | WithLatents:
                if step_end is not None:
                    step_end.flush()
                return made.take() if last is None else last.beside(made.take(), pipeline)

            return fetch() if made.is_here else fetch
        except BaseException:
            self._restore_vae(pipeline)
            raise
        finally:
            if self.decode_streams is not None:
                self.decode_streams.leave()

    def run(self, pipeline: Any, arguments: dict[str, Any], request: GenerateRequest) -> Any:
        """The output of the pipeline, which is the task's own."""
        return pipeline(**arguments)

    # On the lane's thread.

    def _make_ready_heard(self, pipeline: Any) -> None:
        with losses_heard(self.name):
            self._make_ready(pipeline)

    def _make_ready(self, pipeline: Any) -> None:
        prepare_thread(self.lane.threads, self.lane.name)
        if self.lane.name.startswith("cpu"):
            _allocator.keep_freed_memory()
        self.place(pipeline)
        pipeline.set_progress_bar_config(disable=True)
        _tasks.forget_needless_upcast(pipeline)
        self._schedulers = _tasks.schedulers(pipeline.scheduler)
        self._vae_dtype = getattr(getattr(pipeline, "vae", None), "dtype", None)
        self._gatherings = self._make_gatherings(pipeline)
        self.never_waits = pipeline.device.type == "cuda" and _all_gathered(pipeline)
        for task, kind in _tasks.tasks_of(type(pipeline), *_tasks.configs(pipeline)).items():
            self._parameters[task] = _tasks.parameters(kind)
            made = self._pipelines[task] = copy.copy(_tasks.with_components_of(kind, pipeline))
            if not self.one_at_a_time:
                made.__class__ = _tasks.on_device(kind, pipeline.device)
        self.warm_up()

    def _make_gatherings(self, pipeline: Any) -> dict[str, Gathering]:
        found = {}
        for name in DENOISERS + TEXT_ENCODERS:
            module = getattr(pipeline, name, None)
            if isinstance(module, torch.nn.Module):
                heavy = name in DENOISERS
                found[name] = Gathering(
                    module,
                    row_limit=self.row_limit if heavy else min(self.row_limit, self.text_row_limit),
                    row_buckets=self.row_buckets if heavy else (),
                    compiled=self.compiled(name, module) if heavy else None,
                    urgent=not heavy,
                    room=self.room(name) if heavy else None,
                )
        vae = getattr(pipeline, "vae", None)
        if isinstance(vae, torch.nn.Module) and batched_arguments(vae) and not _tasks.upcasts(pipeline):
            found["vae"] = self._decoding(vae)
        return found

    def _decoding(self, vae: torch.nn.Module) -> Gathering:
        if self.decode_streams is not None:
            return Decoding(vae, self.decode_streams, row_limit=self.decode_row_limit)
        compiled = self.decoder(vae)
        return Gathering(vae, row_limit=self.decode_row_limit, method="decode", compiled=compiled)

    def _let_go(self) -> None:
        with contextlib.suppress(RuntimeError):  # the device is lost
            if self.decode_streams is not None:
                self.decode_streams.finish()
        self._pipelines, self._gatherings, self._rgb, self.decode_streams = {}, {}, None, None
        _allocator.give_back_freed_memory()
        if torch.cuda.is_available():
            with contextlib.suppress(RuntimeError):
                torch.cuda.empty_cache()

    # Inside a task.

    def _pipeline_of(self, request: GenerateRequest) -> Any:
        """The pipeline of the request's task, as its own: scheduler and stand-ins are not shared."""
        pipeline = copy.copy(self._pipelines[request.task])
        own = pipeline.__dict__  # past Diffusers' `__setattr__`, which would write into the shared config
        scheduler = _tasks.new_scheduler(request.scheduler, pipeline.scheduler, self._schedulers)
        own["scheduler"] = keep_on_cpu(scheduler) if self.never_waits else scheduler
        lane = TaskCalls(self.lane, self.decode_streams) if self.decode_streams else self.lane
        for name, gathering in self._gatherings.items():
            module = own[name]
            method = "decode" if name == "vae" else "__call__"
            calls = self.calls_of(name, gathering, request)
            own[name] = StandIn(module, calls, lane, share=not request.reproducible, method=method)
        return pipeline

    def _arguments(
        self, request: GenerateRequest, seed: int, pipeline: Any, report: Report
    ) -> dict[str, Any]:
        """The request in the words of this pipeline's `__call__`, and only those it has."""
        accepted = self._parameters[request.task]
        wanted: dict[str, Any] = {
            **self.prompts(request, pipeline),
            "height": request.height,
            "width": request.width,
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": request.guidance_scale,
            "true_cfg_scale": request.true_cfg_scale,
            "image": to_pil(request.image, "RGB"),
            "mask_image": to_pil(request.mask_image, "L"),
            "strength": request.strength,
            "max_sequence_length": self.text_length(request),
            "callback_on_step_end": self._at_step_end(request, report),
        }
        given = {name: value for name, value in wanted.items() if value is not None and name in accepted}
        return given | {
            # On the CPU torch draws in float32 and casts: every dtype and device starts from one noise.
            "generator": torch.Generator("cpu").manual_seed(seed),
            "output_type": "pt" if self.never_waits else "pil",
        }

    def prompts(self, request: GenerateRequest, pipeline: Any) -> dict[str, Any]:
        """The prompts as arguments of this pipeline's `__call__`."""
        return prompt_arguments(
            pipeline,
            request,
            self._parameters[request.task],
            t5_window=self.text_length(request),
            long_prompt=self.long_prompt,
            can_chunk=self.can_chunk,
        )

    def _at_step_end(self, request: GenerateRequest, report: Report) -> StepEnd:
        def preview(pipeline: Any, latents: torch.Tensor) -> OnItsWay:
            return self._preview(pipeline, request, latents)

        return StepEnd(self.lane.check_stop, report, preview if request.previews else None)

    def _restore_vae(self, pipeline: Any) -> None:
        """Some pipelines cast the VAE for a while; one that failed then would leave it so for all."""
        vae = getattr(pipeline, "vae", None)
        if vae is not None and vae.dtype != self._vae_dtype:
            vae.to(self._vae_dtype)

    def _preview(self, pipeline: Any, request: GenerateRequest, latents: torch.Tensor) -> OnItsWay:
        vae = pipeline.vae
        if self._rgb is None:
            size = (request.height or 0, request.width or 0) if self.fixed_sizes else None
            fitted = _preview.fit(vae, pipeline.vae_scale_factor, pipeline._execution_device, size)
            self._rgb = fitted.to(latents.device)
        latents = unpacked(latents, pipeline, request.height or 0, request.width or 0)
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        return _preview.show(latents[0] / vae.config.scaling_factor + shift, self._rgb)


def _all_gathered(pipeline: Any) -> bool:
    """Whether every denoiser gets its timesteps with a tick, and so can have them from the CPU."""
    modules = [getattr(pipeline, name, None) for name in DENOISERS]
    return all(bool(batched_arguments(module)) for module in modules if module is not None)
