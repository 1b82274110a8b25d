"""ONNX Runtime: providers, session options, and how a graph becomes a session."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import onnxruntime
import torch

from backends._ort_binding import OrtError, OrtSession
from backends._ort_captured import SETTINGS, CapturedSession, check_fixed
from backends._tensorrt_provider import PROVIDER as TENSORRT
from backends._tensorrt_provider import tensorrt_settings
from router.errors import BackendUnavailableError, LoadError
from router.manifest import TensorRecord

_LOG = logging.getLogger("router.backends")

PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Kind of device -> the provider that serves it where none is configured."""

ON_CUDA = ("CUDAExecutionProvider", TENSORRT, "NvTensorRTRTXExecutionProvider")
"""Providers that work in the memory of a CUDA device; the others take tensors in that of the CPU."""

_EXTRAS = {
    "CPUExecutionProvider": "onnx",
    "CUDAExecutionProvider": "onnx-gpu",
    TENSORRT: "onnx-gpu",
}
"""Provider -> the extra of this package that brings it."""

_OPTIMIZATIONS = {
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}

_ERRORS_ONLY = 3
"""ONNX Runtime's level 3 of logging: a session says nothing of what it makes of a graph."""


def finds_cuda() -> bool:
    """Whether this build of ONNX Runtime has its provider for CUDA."""
    return PROVIDERS["cuda"] in onnxruntime.get_available_providers()


@dataclass(frozen=True)
class OrtRuntime:
    """Opens sessions on one device. No custom operators are registered, whatever a graph asks for."""

    device: torch.device
    providers: Sequence[str]
    provider_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    threads: int = 0
    spinning: bool = False
    optimization: str = "all"
    cuda_graphs: bool = False

    notes: tuple[str, ...] = ()
    version: str = onnxruntime.__version__
    memory_factor: float = 1.1
    """Measured on two graphs of a UNet of 78 million parameters: 1.05 on the CPU."""

    @property
    def dtypes(self) -> tuple[str, ...]:
        """ONNX Runtime's CPU provider has no bfloat16 for most operators."""
        return ("float32", "float16", "bfloat16") if self.device.type == "cuda" else ("float32", "float16")

    def check(self) -> None:
        """Raise `BackendUnavailableError` for the first provider that is not there."""
        there = onnxruntime.get_available_providers()
        for name in self.providers:
            if name not in there:
                cure = f"pip install 'triptych[{_EXTRAS[name]}]'" if name in _EXTRAS else "drop it"
                raise BackendUnavailableError(
                    f"onnxruntime {self.version} has no provider {name!r}, it has {', '.join(there)}; {cure}."
                )

    def open(self, file: Path, inputs: Sequence[TensorRecord] = ()) -> OrtSession:
        if self.cuda_graphs:
            check_fixed(file, inputs)
        try:
            session = onnxruntime.InferenceSession(
                file,
                self._session_options(),
                providers=[(name, self._provider_settings(name, file, inputs)) for name in self.providers],
            )
        except OrtError as exc:
            raise _load_error(file, exc) from exc
        self._check_providers(file, session)
        return (CapturedSession if self.cuda_graphs else OrtSession)(session, self.device)

    def _provider_settings(self, name: str, file: Path, inputs: Sequence[TensorRecord]) -> dict[str, Any]:
        place = {"device_id": self.device.index or 0} if name in ON_CUDA else {}
        captured = SETTINGS.get(name, {}) if self.cuda_graphs else {}
        configured = {**place, **captured, **self.provider_options.get(name, {})}
        return tensorrt_settings(file, inputs, configured) if name == TENSORRT else configured

    def _session_options(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.graph_optimization_level = _OPTIMIZATIONS[self.optimization]
        options.log_severity_level = _ERRORS_ONLY
        _share_one_arena()
        entries = {
            "session.intra_op.allow_spinning": str(int(self.spinning)),
            "session.use_env_allocators": "1",
            # Weights go past the arena, which would keep their room when the session is gone.
            "session.use_device_allocator_for_initializers": "1",
        }
        for name, value in entries.items():
            options.add_session_config_entry(name, value)
        return options

    def _check_providers(self, file: Path, session: Any) -> None:
        """ONNX Runtime goes on without a provider whose libraries it cannot load; we do not."""
        missing = [name for name in self.providers if name not in session.get_providers()]
        if missing:
            raise LoadError(
                f"{_name(file)} was not loaded by {missing[0]}, whose own libraries are missing or too old;"
                " install what onnxruntime names in its log."
            )


@functools.cache
def _share_one_arena() -> None:
    """One arena on the CPU for all sessions; each one's own would keep the most it ever needed.

    Without any, a run takes 1.4 times as long on a lane's thread: glibc gives its pages back each time.
    """
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    as_requested = onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1})
    with contextlib.suppress(*OrtError):  # the application has registered one, which serves as well
        onnxruntime.create_and_register_allocator(place, as_requested)


def _load_error(file: Path, exc: Exception) -> LoadError:
    _LOG.warning("%s could not be loaded", _name(file), exc_info=exc)
    version = onnxruntime.__version__
    if "opset" in str(exc):
        return LoadError(
            f"onnxruntime {version} does not know the opset of {_name(file)};"
            " install a newer one, or export the model again with a lower `--opset`."
        )
    return LoadError(
        f"onnxruntime {version} could not load {_name(file)} ({type(exc).__name__});"
        " see the log, and copy the export again."
    )


def _name(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"
