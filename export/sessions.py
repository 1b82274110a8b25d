"""Sessions: a graph run on the CPU, by the runtime that can run its dtype there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from export.errors import ExportError
from router.manifest import Runtime

Feeds: TypeAlias = Mapping[str, NDArray[Any]]

_MAX_SAID = 300  # characters of a runtime's own sentence


class Session(Protocol):
    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        """The outputs in the graph's order. `feeds` are of the graph's dtypes, float32 for bfloat16."""
        ...


def runtime_for(dtype: str) -> Runtime:
    """ONNX Runtime has no kernels for bfloat16 on a CPU."""
    return "openvino" if dtype == "bfloat16" else "onnxruntime"


def open_session(file: Path, dtype: str) -> Session:
    """Its `run` too raises `ExportError` where the runtime refuses, or is not installed."""
    runtime = runtime_for(dtype)
    with _refused(runtime, file):
        return _Checked(_OpenVino(file) if runtime == "openvino" else _OnnxRuntime(file), runtime, file)


@contextlib.contextmanager
def _refused(runtime: Runtime, file: Path) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as exc:
        raise ExportError(
            f"Graphs in bfloat16 are run by {runtime}, which is missing: pip install 'triptych[{runtime}]'"
        ) from exc
    except Exception as exc:  # the runtimes' errors have no base class of their own
        said = str(exc).strip().splitlines() or [type(exc).__name__]
        where = f"{file.parent.name}/{file.name}"
        raise ExportError(
            f"`{where}` is refused by {runtime}: {said[0][:_MAX_SAID].replace(str(file), where)}"
        ) from exc


class _Checked:
    def __init__(self, session: Session, runtime: Runtime, file: Path) -> None:
        self._session = session
        self._runtime = runtime
        self._file = file

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        with _refused(self._runtime, self._file):
            return self._session.run(feeds)


class _OnnxRuntime:
    def __init__(self, file: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(file, options, providers=providers)

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        made: list[NDArray[Any]] = self._session.run(None, dict(feeds))
        return made


class _OpenVino:
    def __init__(self, file: Path) -> None:
        import openvino
        from openvino import properties
        from openvino.preprocess import PrePostProcessor

        core = openvino.Core()
        model = core.read_model(file)
        # NumPy has no bfloat16, so float32 goes in and out.
        ends = PrePostProcessor(model)
        for index, port in enumerate(model.inputs):
            if port.element_type == openvino.Type.bf16:
                ends.input(index).tensor().set_element_type(openvino.Type.f32)
        for index, port in enumerate(model.outputs):
            if port.element_type == openvino.Type.bf16:
                ends.output(index).tensor().set_element_type(openvino.Type.f32)
        self._names = [port.node.friendly_name for port in model.inputs]
        # Else it would compute in bfloat16 what the graph has in float32: timesteps, above all.
        exact = {properties.hint.inference_precision(): openvino.Type.f32}
        self._request = core.compile_model(ends.build(), "CPU", exact).create_infer_request()

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        made = self._request.infer([feeds[name] for name in self._names])
        return [np.array(value) for value in made.values()]
