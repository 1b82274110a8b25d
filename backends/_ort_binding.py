"""One ONNX Runtime session run through IOBinding, on the memory of torch tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from onnxruntime.capi import onnxruntime_pybind11_state as _errors
from torch.utils.dlpack import from_dlpack

from backends._session import TensorSpec
from router.errors import LoadError

_ELEMENTS: Final[Mapping[str, tuple[torch.dtype, int]]] = {
    "tensor(float)": (torch.float32, 1),
    "tensor(float16)": (torch.float16, 10),
    "tensor(bfloat16)": (torch.bfloat16, 16),
    "tensor(int32)": (torch.int32, 6),
    "tensor(int64)": (torch.int64, 7),
}
"""ONNX Runtime's name of an element -> torch's, and its number in onnx.TensorProto.DataType."""

OrtError = (
    _errors.EPFail,
    _errors.EngineError,
    _errors.Fail,
    _errors.InvalidArgument,
    _errors.InvalidGraph,
    _errors.InvalidProtobuf,
    _errors.NoModel,
    _errors.NoSuchFile,
    _errors.NotImplemented,
    _errors.RuntimeException,
)
"""Derived from nothing but `Exception`, each of them."""


class OrtSession:
    """One graph, bound to the memory of torch tensors: nothing is copied on the way in or out.

    The same code serves the CPU and CUDA. On CUDA it has not been run: written from ONNX Runtime's
    documentation of IOBinding, with a synchronisation where torch's stream hands over to its own.
    """

    def __init__(self, session: Any, device: torch.device) -> None:
        self._session = session
        self._device = device
        self._place = (device.type, device.index or 0)
        self.inputs = {spec.name: _spec(spec) for spec in session.get_inputs()}
        self._elements = {spec.name: _ELEMENTS[spec.type][1] for spec in session.get_inputs()}
        self._outputs = {spec.name: (spec.type, _spec(spec)) for spec in session.get_outputs()}

    def run(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        binding = self._session.io_binding()
        held = {name: tensor.to(self._device).contiguous() for name, tensor in feeds.items()}
        for name, tensor in held.items():
            self._bind_input(binding, name, tensor)
        outputs = {name: self._bind_output(binding, name) for name in self._outputs}
        self._run_bound(binding)
        return {name: self._fetched(binding, name, output) for name, output in outputs.items()}

    def _run_bound(self, binding: Any) -> None:
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        try:
            self._session.run_with_iobinding(binding)
        except OrtError as exc:
            raise RuntimeError(str(exc)) from exc

    def _bind_input(self, binding: Any, name: str, tensor: torch.Tensor) -> None:
        binding.bind_input(name, *self._place, self._elements[name], tuple(tensor.shape), tensor.data_ptr())

    def _bind_output(self, binding: Any, name: str) -> torch.Tensor | None:
        """A tensor that takes the output; `None` where its shape is known only after the run."""
        spec = self._outputs[name][1]
        if None in spec.shape:
            binding.bind_output(name, *self._place)
            return None
        shape = tuple(size for size in spec.shape if size is not None)
        output = torch.empty(shape, dtype=spec.dtype, device=self._device)
        self._bind_output_to(binding, name, output)
        return output

    def _bind_output_to(self, binding: Any, name: str, output: torch.Tensor) -> None:
        element = _ELEMENTS[self._outputs[name][0]][1]
        binding.bind_output(name, *self._place, element, tuple(output.shape), output.data_ptr())

    def _fetched(self, binding: Any, name: str, output: torch.Tensor | None) -> torch.Tensor:
        if output is not None:
            return output
        value = binding.get_outputs()[list(self._outputs).index(name)]
        if hasattr(value, "__dlpack__"):  # it stays where it is, and lives as long as the tensor
            return from_dlpack(value)
        return torch.from_numpy(value.numpy()).to(self._device)


def _spec(argument: Any) -> TensorSpec:
    if argument.type not in _ELEMENTS:
        raise LoadError(f"A graph has a {argument.type} called {argument.name!r}; export the model again.")
    dtype, _ = _ELEMENTS[argument.type]
    return TensorSpec(dtype, tuple(size if isinstance(size, int) else None for size in argument.shape))
