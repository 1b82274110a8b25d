"""Sessions: a graph run on the CPU, by the runtime that can run its dtype there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from export.errors import ExportError
from router.manifest import Runtime

Feeds = Mapping[str, NDArray[Any]]


class Session(Protocol):
    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        """The outputs in the graph's order. `feeds` are of the graph's dtypes, float32 for bfloat16."""
        ...


def runtime_for(dtype: str) -> Runtime:
    """ONNX Runtime has no kernels for bfloat16 on a CPU."""
    return "openvino" if dtype == "bfloat16" else "onnxruntime"


def open_session(file: Path, dtype: str) -> Session:
    """Raises `ExportError` where the runtime refuses the graph, or is not installed."""
    try:
        return _OpenVino(file) if runtime_for(dtype) == "openvino" else _OnnxRuntime(file)
    except ModuleNotFoundError as exc:
        raise ExportError(
            "Graphs in bfloat16 are run by OpenVINO, which is missing: pip install 'triptych[openvino]'"
        ) from exc
    except Exception as exc:
        said = str(exc).strip().splitlines() or [type(exc).__name__]
        raise ExportError(
            f"{runtime_for(dtype)} refuses {file.parent.name}/{file.name}: {said[0][:200]}"
        ) from exc


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
