"""ComponentsBackend: an export whose graphs run as models of the same Triton server.

Its denoiser's calls go from the lane's thread through Triton's own module (BLS), one run of the gathered
rows at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from backends._session import Runtime, TensorSpec
from backends.onnxruntime import OnnxRuntimeBackend, OnnxRuntimeOptions
from router.errors import LoadError
from router.manifest import GraphRecord, Manifest, TensorRecord


class ComponentsOptions(OnnxRuntimeOptions):
    """Those of the export, and where its graphs are."""

    models: dict[str, str] = Field(default_factory=dict)
    """Graph, as the manifest names it -> model of the server."""
    joining: frozenset[str] = frozenset()
    """Those of them in which Triton joins rows; there one value for each row is [rows, 1]."""


class ComponentsBackend(OnnxRuntimeBackend):
    """One instance inside a Triton server. Source: a folder that `python -m export.to_onnx` wrote."""

    options_kind = ComponentsOptions
    options: ComponentsOptions

    def make_runtime(self, device: str) -> Runtime:
        folder = self.find()
        return TritonRuntime(folder, self.options, Manifest.read(folder))


@dataclass(frozen=True)
class TritonRuntime:
    """Opens nothing: a session is a name and the shapes that the manifest tells of it."""

    folder: Path
    options: ComponentsOptions
    manifest: Manifest

    notes: tuple[str, ...] = ("graphs run as models of the server",)
    dtypes: tuple[str, ...] = ("float32", "float16")
    memory_factor: float = 0.0
    """The weights are in the models' own processes."""

    @property
    def version(self) -> str:
        return version("onnxruntime")

    def open(self, file: Path, inputs: Sequence[TensorRecord] = ()) -> TritonSession:
        name = file.relative_to(self.folder).as_posix()
        records = (graph for graphs in self.manifest.components.values() for graph in graphs)
        record = next((graph for graph in records if graph.file == name), None)
        model = self.options.models.get(name)
        if record is None or model is None:
            raise LoadError(f"No model of the server runs {name}; write the repository again.")
        return TritonSession(model, record, joining=model in self.options.joining)


class TritonSession:
    """One graph as a model of the server, called by its thread and waited for."""

    def __init__(self, model: str, record: GraphRecord, *, joining: bool) -> None:
        import triton_python_backend_utils  # Triton's own module, which its stub alone has

        self._triton: Any = triton_python_backend_utils
        self._model = model
        self._smallest = (-1, 1) if joining else (-1,)
        self._outputs = [output.name for output in record.outputs]
        self.inputs = {
            each.name: TensorSpec(
                getattr(torch, each.dtype),
                tuple(axis if isinstance(axis, int) else None for axis in each.shape),
            )
            for each in record.inputs
        }

    def run(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors = [self._triton.Tensor(name, self._array(tensor)) for name, tensor in feeds.items()]
        request = self._triton.InferenceRequest(
            model_name=self._model, requested_output_names=self._outputs, inputs=tensors
        )
        response = request.exec()
        if response.has_error():
            raise RuntimeError(f"{self._model}: {response.error().message()}")
        return {name: self._fetched(response, name) for name in self._outputs}

    def _array(self, tensor: torch.Tensor) -> Any:
        """No shape is smaller than Triton's smallest."""
        shaped = tensor.reshape(self._smallest) if tensor.ndim < len(self._smallest) else tensor
        return shaped.cpu().contiguous().numpy()

    def _fetched(self, response: Any, name: str) -> torch.Tensor:
        """A copy: the server takes its memory back."""
        array = self._triton.get_output_tensor_by_name(response, name).as_numpy()
        return torch.from_numpy(array.copy())
