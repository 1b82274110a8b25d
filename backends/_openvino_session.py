"""OpenVINO: the same graphs compiled for the CPU, in float32 or bfloat16."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import openvino
import torch
from openvino import properties
from openvino.preprocess import PrePostProcessor

from backends._session import TensorSpec
from router.errors import LoadError
from router.manifest import TensorRecord

_LOG = logging.getLogger("router.backends")

_PRECISIONS: Final = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}
_DTYPES: Final = {
    openvino.Type.f32: torch.float32,
    openvino.Type.f16: torch.float16,
    openvino.Type.bf16: torch.bfloat16,
    openvino.Type.i32: torch.int32,
    openvino.Type.i64: torch.int64,
}
_DEVICE = "CPU"
_RESULT = "/sink_port_0"
"""What OpenVINO adds to the name of an output."""


class OpenVinoRuntime:
    """Compiles graphs. No extensions are loaded, whatever a graph asks for."""

    memory_factor = 2.5
    """Measured as for ONNX Runtime: 2.5 in float32, 2.1 in bfloat16."""
    dtypes = ("float32", "float16", "bfloat16")
    version: str = openvino.__version__.partition("-")[0]

    def __init__(self, precision: str, threads: int) -> None:
        self._core = openvino.Core()
        self._settings = {
            properties.hint.performance_mode(): properties.hint.PerformanceMode.LATENCY,
            properties.hint.execution_mode(): properties.hint.ExecutionMode.PERFORMANCE,
            properties.hint.inference_precision(): _PRECISIONS[precision],
            properties.hint.enable_cpu_pinning(): False,  # lanes share the cores
            properties.inference_num_threads(): threads,
            properties.num_streams(): 1,
        }
        self.notes: tuple[str, ...] = (f"openvino {self.version}, {precision}",)
        if precision == "bfloat16" and "BF16" not in cpu_capabilities(self._core):
            self.notes += ("this CPU has no bfloat16 (avx512_bf16, amx): OpenVINO emulates it, no faster",)

    def open(self, file: Path, inputs: Sequence[TensorRecord] = ()) -> OpenVinoSession:
        try:
            model = self._core.read_model(file)
            given = {each.node.friendly_name: _spec(each) for each in model.inputs}
            made = {each.node.friendly_name.removesuffix(_RESULT): _spec(each) for each in model.outputs}
            compiled = self._core.compile_model(_with_wide_ends(model), _DEVICE, self._settings)
            return OpenVinoSession(compiled, given, made)
        except RuntimeError as exc:
            _LOG.warning("%s/%s could not be loaded", file.parent.name, file.name, exc_info=exc)
            raise LoadError(
                f"openvino {self.version} could not load {file.parent.name}/{file.name};"
                " see the log, and copy the export again."
            ) from exc


def cpu_capabilities(core: Any) -> list[str]:
    """What this CPU computes in by itself: `FP32`, `BF16`, `INT8`, ..."""
    capabilities: list[str] = core.get_property(_DEVICE, properties.device.capabilities())
    return capabilities


class OpenVinoSession:
    """One compiled graph and its one request."""

    def __init__(
        self, compiled: Any, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]
    ) -> None:
        """`inputs` and `outputs` as the graph has them, in its order, by ONNX's names."""
        self._request = compiled.create_infer_request()
        self.inputs = inputs
        self._outputs = outputs

    def run(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        arrays = [_wide(feeds[name]).contiguous().numpy() for name in self.inputs]
        # Inputs are read in place; outputs are copied, since the request reuses its own.
        made = self._request.infer(arrays, share_inputs=True, share_outputs=False)
        return {
            name: torch.from_numpy(made[index]).to(spec.dtype)
            for index, (name, spec) in enumerate(self._outputs.items())
        }


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def _with_wide_ends(model: Any) -> Any:
    """NumPy has no bfloat16: a graph that takes and gives it is handed float32."""
    ends = PrePostProcessor(model)
    for index, port in enumerate(model.inputs):
        if port.element_type == openvino.Type.bf16:
            ends.input(index).tensor().set_element_type(openvino.Type.f32)
    for index, port in enumerate(model.outputs):
        if port.element_type == openvino.Type.bf16:
            ends.output(index).tensor().set_element_type(openvino.Type.f32)
    return ends.build()


def _spec(port: Any) -> TensorSpec:
    shape = tuple(axis.get_length() if axis.is_static else None for axis in port.partial_shape)
    return TensorSpec(_DTYPES[port.element_type], shape)
