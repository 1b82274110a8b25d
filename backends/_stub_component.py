"""ComponentModel: all graphs of one component, run by ONNX Runtime for whoever asks the server.

Triton hands over several requests at once, where their rows may be joined; joining is done here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime

from backends._stub_requests import Array

Feeds: TypeAlias = Mapping[str, Array]


class ComponentModel:
    """Loads in the constructor; what ONNX Runtime raises there is told by Triton."""

    def __init__(self, arguments: Mapping[str, str], triton: Any) -> None:
        config = json.loads(arguments["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        version = Path(arguments["model_repository"], arguments["model_version"])
        folder = (version / parameters["source"]).resolve()
        self._triton = triton
        self._joins = config["max_batch_size"] > 0
        graphs = [
            _Graph(folder / file, int(parameters.get("threads", "0")))
            for file in json.loads(parameters["graphs"])
        ]
        self._graphs = sorted(graphs, key=lambda graph: graph.rows or 0)

    def execute(self, requests: Sequence[Any]) -> Sequence[Any]:
        feeds = [self._read(request) for request in requests]
        if self._joins:
            rows = [len(next(iter(each.values()))) for each in feeds]
            joined = {name: np.concatenate([each[name] for each in feeds]) for name in feeds[0]}
            return self._split(self._run_padded(joined, sum(rows)), rows)
        return [self._response(self._run(each)) for each in feeds]

    def finalize(self) -> None:
        self._graphs = []

    def _read(self, request: Any) -> dict[str, Array]:
        """Triton's smallest shape is [1], or [rows, 1] where it joins; graphs may have one axis less."""
        arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        shapes = self._graphs[0].shapes
        return {
            name: array[..., 0] if array.ndim > len(shapes.get(name, array.shape)) else array
            for name, array in arrays.items()
        }

    def _run_padded(self, feeds: Feeds, rows: int) -> dict[str, Array] | str:
        """On the smallest graph that holds the rows, its last one repeated for those that are missing."""
        for graph in self._graphs:
            padded = {name: _padded(array, (graph.rows or rows) - rows) for name, array in feeds.items()}
            if graph.takes(padded):
                return {name: array[:rows] for name, array in graph.run(padded).items()}
        return _refusal(feeds)

    def _run(self, feeds: Feeds) -> dict[str, Array] | str:
        graph = next((graph for graph in self._graphs if graph.takes(feeds)), None)
        return graph.run(feeds) if graph else _refusal(feeds)

    def _split(self, outputs: dict[str, Array] | str, rows: Sequence[int]) -> list[Any]:
        if isinstance(outputs, str):
            return [self._response(outputs) for _ in rows]
        ends = np.cumsum(rows)
        return [
            self._response({name: array[end - count : end] for name, array in outputs.items()})
            for count, end in zip(rows, ends, strict=True)
        ]

    def _response(self, outputs: dict[str, Array] | str) -> Any:
        """A sentence instead of outputs is an error."""
        if isinstance(outputs, str):
            error = self._triton.TritonError(outputs, self._triton.TritonError.INVALID_ARG)
            return self._triton.InferenceResponse(error=error)
        tensors = [self._triton.Tensor(name, np.ascontiguousarray(array)) for name, array in outputs.items()]
        return self._triton.InferenceResponse(output_tensors=tensors)


class _Graph:
    """One graph; `rows` is the number it was made for, `None` where that is open."""

    def __init__(self, file: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            file, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self.shapes = {each.name: each.shape for each in self._session.get_inputs()}
        self._outputs = [each.name for each in self._session.get_outputs()]
        first = next((shape[0] for shape in self.shapes.values() if shape), None)
        self.rows = first if isinstance(first, int) else None

    def takes(self, feeds: Feeds) -> bool:
        return feeds.keys() == self.shapes.keys() and all(
            len(shape) == feeds[name].ndim
            and all(
                not isinstance(mine, int) or mine == its
                for mine, its in zip(shape, feeds[name].shape, strict=True)
            )
            for name, shape in self.shapes.items()
        )

    def run(self, feeds: Feeds) -> dict[str, Array]:
        arrays = {name: np.asarray(array, order="C") for name, array in feeds.items()}
        return dict(zip(self._outputs, self._session.run(self._outputs, arrays), strict=True))


def _padded(array: Array, missing: int) -> Array:
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing > 0 else array


def _refusal(feeds: Feeds) -> str:
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
    return f"wrong_shape: no graph takes {shapes}; ask the model's configuration for its shapes."
