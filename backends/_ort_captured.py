"""CUDA graphs of ONNX Runtime: a session whose tensors lie still, so that a run can be replayed.

Written from ONNX Runtime's documentation; it was not run on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from backends._ort_binding import OrtSession
from backends._tensorrt_provider import PROVIDER as TENSORRT
from router.errors import LoadError
from router.manifest import TensorRecord

SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "CUDAExecutionProvider": {"enable_cuda_graph": "1"},
    TENSORRT: {"trt_cuda_graph_enable": "1"},
}
"""Provider -> what makes it record its first runs, and replay them from then on."""


class CapturedSession(OrtSession):
    """A graph of fixed shapes, bound once. Each run copies its inputs to their places, and its outputs away.

    The same code serves the CPU, where nothing is recorded.
    """

    def __init__(self, session: Any, device: torch.device) -> None:
        super().__init__(session, device)
        self._fed = {name: _place(spec, device) for name, spec in self.inputs.items()}
        self._made = {name: _place(spec, device) for name, (_, spec) in self._outputs.items()}
        self._binding = session.io_binding()
        for name, tensor in self._fed.items():
            self._bind_input(self._binding, name, tensor)
        for name, tensor in self._made.items():
            self._bind_output_to(self._binding, name, tensor)

    def run(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for name, tensor in feeds.items():
            self._fed[name].copy_(tensor)
        self._run_bound(self._binding)
        return {name: tensor.clone() for name, tensor in self._made.items()}


def check_fixed(file: Path, inputs: Sequence[TensorRecord]) -> None:
    """Raise `LoadError` for a graph whose shapes the manifest does not fix."""
    if not inputs or any(isinstance(axis, str) for tensor in inputs for axis in tensor.shape):
        raise LoadError(
            f"{file.parent.name}/{file.name} has open axes, and option `cuda_graphs` wants fixed shapes;"
            " export the model with profiles, or drop the option."
        )


def _place(spec: Any, device: torch.device) -> torch.Tensor:
    return torch.zeros(spec.shape, dtype=spec.dtype, device=device)
