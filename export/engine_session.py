"""EngineSession: a built engine, loaded and run on tensors of PyTorch. Nothing here was run on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import tensorrt
import torch

from export.engines import PlannedEngine, shape_of
from export.errors import ExportError
from export.tensorrt_log import Log
from router.manifest import TensorRecord

_DTYPES: Final = {
    "float32": "FLOAT",
    "float16": "HALF",
    "bfloat16": "BF16",
    "int32": "INT32",
    "int64": "INT64",
}
"""ONNX's name -> TensorRT's."""


class EngineSession:
    """Raises `ExportError` for an engine that cannot be loaded, or is not what was planned.

    An engine is code: load only what was built here, or what `EngineManifest.check` has passed.
    """

    def __init__(self, plan: bytes, engine: PlannedEngine, device: int, *, host_code: bool = False) -> None:
        """`host_code`: a version-compatible engine carries code for the CPU, which must be allowed."""
        self._planned = engine
        self._device = cuda(device)
        self._log = Log()
        self._runtime = tensorrt.Runtime(self._log)
        if host_code:
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ExportError(
                f"TensorRT {tensorrt.__version__} could not load `{engine.file}`: {self._log.last_error()}"
            )
        self._check()
        self._context = self._engine.create_execution_context()

    def run(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs by name, in the graph's order, on the device. `feeds` are of the graph's dtypes."""
        outputs = {each.name: self._empty(each) for each in self._planned.outputs}
        held = {name: tensor.to(self._device).contiguous() for name, tensor in feeds.items()}
        for name, tensor in held.items():
            self._context.set_input_shape(name, tuple(tensor.shape))
        for name, tensor in (held | outputs).items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        stream = torch.cuda.current_stream(self._device)
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise ExportError(f"TensorRT could not run `{self._planned.file}`: {self._log.last_error()}")
        stream.synchronize()
        return outputs

    def _empty(self, tensor: TensorRecord) -> torch.Tensor:
        return torch.empty(shape_of(tensor), dtype=getattr(torch, tensor.dtype), device=self._device)

    def _check(self) -> None:
        """Names, dtypes and shapes are the graph's: strong typing changes none of them."""
        found = {name: self._found(name) for name in self._names()}
        told = {
            each.name: (shape_of(each), getattr(tensorrt.DataType, _DTYPES[each.dtype]))
            for each in (*self._planned.inputs, *self._planned.outputs)
        }
        for name in sorted(found.keys() | told.keys()):
            if found.get(name) != told.get(name):
                raise ExportError(
                    f"`{self._planned.file}` has {name!r} as {_said(found.get(name))}, and its graph as"
                    f" {_said(told.get(name))}; build it again."
                )

    def _names(self) -> list[str]:
        return [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]

    def _found(self, name: str) -> tuple[tuple[int, ...], Any]:
        shape = tuple(self._engine.get_tensor_shape(name))
        if name in self._planned.open_inputs:
            _, shape, _ = map(tuple, self._engine.get_tensor_profile_shape(name, 0))
        elif self._planned.open_inputs:
            shape = tuple(self._planned.rows if axis < 0 else axis for axis in shape)
        return shape, self._engine.get_tensor_dtype(name)


def cuda(index: int) -> torch.device:
    return torch.device("cuda", index)


def _said(tensor: tuple[tuple[int, ...], Any] | None) -> str:
    return f"{tensor[1]} {list(tensor[0])}" if tensor else "nothing"
