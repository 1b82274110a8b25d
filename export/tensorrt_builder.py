"""EngineBuilder: TensorRT's builder, from one graph to one engine. Nothing here was run on a GPU.

Written for 10.9 to 11.x: strongly typed, so that every tensor keeps the dtype that the graph gives it.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import tensorrt

from export.engine_settings import EngineSettings, Hardware
from export.engines import PlannedEngine, shape_of
from export.errors import ExportError, UnsupportedExportError
from export.progress import Progress
from export.tensorrt_log import Log

_HARDWARE: Final[dict[Hardware, str]] = {
    "same-compute-capability": "SAME_COMPUTE_CAPABILITY",
    "ampere-plus": "AMPERE_PLUS",
}


class EngineBuilder:
    """Builds one engine after the other, on CUDA's current device. Later ones profit from `timings`."""

    def __init__(self, settings: EngineSettings, progress: Progress, timings: bytes = b"") -> None:
        self.timings = timings
        """TensorRT's timing cache, serialised."""
        self._settings = settings
        self._progress = progress
        self._log = Log()
        self._builder = tensorrt.Builder(self._log)

    def build(self, engine: PlannedEngine, file: Path) -> bytes:
        """The serialised engine. Blocks for seconds to an hour.

        Raises `ExportError` with TensorRT's own words, and `KeyboardInterrupt` where Ctrl-C has stopped it.
        """
        network = self._builder.create_network(_strongly_typed())
        self._parse(network, engine, file)
        config = self._config(network, engine)
        with _until_ctrl_c() as stopped:
            config.progress_monitor = _Monitor(self._progress, engine.file, stopped)
            plan = self._builder.build_serialized_network(network, config)
        if stopped.is_set():
            raise KeyboardInterrupt
        if plan is None:
            raise ExportError(
                f"TensorRT {tensorrt.__version__} could not build `{engine.file}`: {self._log.last_error()}"
            )
        self.timings = bytes(config.get_timing_cache().serialize())
        return bytes(plan)

    def _parse(self, network: Any, engine: PlannedEngine, file: Path) -> None:
        """By its path: weights outside of the graph are looked for beside it."""
        parser = tensorrt.OnnxParser(network, self._log)
        parser.set_flag(tensorrt.OnnxParserFlag.NATIVE_INSTANCENORM)
        if not parser.parse_from_file(str(file)):
            raise ExportError(
                f"TensorRT {tensorrt.__version__} cannot read `{engine.graph}`: {_first_error(parser)}"
            )

    def _config(self, network: Any, engine: PlannedEngine) -> Any:
        settings, config = self._settings, self._builder.create_builder_config()
        config.builder_optimization_level = settings.optimization_level
        if settings.workspace_mib:
            config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, settings.workspace_mib * 2**20)
        if not settings.tf32:
            config.clear_flag(tensorrt.BuilderFlag.TF32)
        if settings.version_compatible:
            config.set_flag(tensorrt.BuilderFlag.VERSION_COMPATIBLE)
        if settings.hardware in _HARDWARE:
            config.hardware_compatibility_level = _hardware_level(settings.hardware)
        self._set_timings(config)
        self._fix_open_axes(config, engine)
        return config

    def _set_timings(self, config: Any) -> None:
        cache = config.create_timing_cache(self.timings)
        if not config.set_timing_cache(cache, False):
            self._progress.note("The timing cache is of another GPU or TensorRT; a new one is begun.")
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def _fix_open_axes(self, config: Any, engine: PlannedEngine) -> None:
        """min = opt = max; a graph whose axes are all fixed needs no profile."""
        opened = [each for each in engine.inputs if each.name in engine.open_inputs]
        if opened:
            profile = self._builder.create_optimization_profile()
            for tensor in opened:
                profile.set_shape(tensor.name, *[shape_of(tensor)] * 3)
            config.add_optimization_profile(profile)


def _strongly_typed() -> int:
    """TensorRT 10 must be told; 11 knows nothing else and may lose the flag."""
    flag = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _hardware_level(hardware: Hardware) -> Any:
    level = getattr(tensorrt.HardwareCompatibilityLevel, _HARDWARE[hardware], None)
    if level is None:
        raise UnsupportedExportError(
            f"`hardware` {hardware!r} is not known to TensorRT {tensorrt.__version__}; install a newer one,"
            " or use exact."
        )
    return level


def _first_error(parser: Any) -> str:
    if not parser.num_errors:
        return "it does not say why."
    error = parser.get_error(0)
    return f"{error.desc()} (node {error.node_name()!r}, {error.node_operator()})."


class _Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]
    """Called from threads of TensorRT's own, where nothing may be raised."""

    def __init__(self, progress: Progress, file: str, stopped: threading.Event) -> None:
        super().__init__()
        self._progress = progress
        self._file = file
        self._stopped = stopped
        self._outermost: str | None = None

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        if parent_phase is None:
            self._outermost = phase_name
            self._progress.begin(self._file, num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Whether to go on."""
        if phase_name == self._outermost:
            self._progress.step(phase_name)
        return not self._stopped.is_set()

    def phase_finish(self, phase_name: str) -> None:
        pass


@contextlib.contextmanager
def _until_ctrl_c() -> Iterator[threading.Event]:
    """Ctrl-C sets the event: an exception would not find its way out of TensorRT."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = signal.signal(signal.SIGINT, lambda *_: stopped.set())
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
