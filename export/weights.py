"""Weights: one data file for all graphs of a component, in which each distinct tensor stands once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import onnx_ir
from torch import nn

DATA_FILE: Final = "model.onnx_data"
"""Where Optimum and older tools look for the weights of `model.onnx`."""

PAGE_BYTES: Final = 4096
"""Smaller tensors stay in the graph; the others begin on a page, so that runtimes can map the file."""

INLINE_LIMIT_BYTES: Final = 1536 * 2**20
"""A graph beyond 2 GiB is no protobuf; PyTorch's own exporter moves weights out from here on."""


class SharedWeights:
    """Open while the graphs of one component are written; ONNX allows data beside the graph only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = (folder / DATA_FILE).open("wb")
        self._offsets: dict[bytes, int] = {}

    def __enter__(self) -> SharedWeights:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def take(self, model: onnx_ir.Model) -> int:
        """Write the graph's large initialisers that are not there yet, and point it to them.

        Returns the bytes that had to be written.
        """
        before = self._file.tell()
        for value in model.graph.initializers.values():
            tensor = value.const_value
            assert tensor is not None
            if tensor.nbytes >= PAGE_BYTES:
                value.const_value = onnx_ir.ExternalTensor(
                    DATA_FILE,
                    self._offset(tensor),
                    tensor.nbytes,
                    tensor.dtype,
                    shape=onnx_ir.Shape(tensor.shape.numpy()),
                    name=value.name or "",
                    base_dir=self._folder,
                )
        return self._file.tell() - before

    def _offset(self, tensor: onnx_ir.TensorProtocol) -> int:
        content = tensor.tobytes()
        digest = hashlib.sha256(content).digest()
        if digest not in self._offsets:
            self._file.write(bytes(-self._file.tell() % PAGE_BYTES))
            self._offsets[digest] = self._file.tell()
            self._file.write(content)
        return self._offsets[digest]


def needs_data_file(module: nn.Module, graphs: int) -> bool:
    """Whether weights would be written twice, or would not fit into a graph."""
    return graphs > 1 or _bytes_of(module) > INLINE_LIMIT_BYTES


def _bytes_of(module: nn.Module) -> int:
    tensors: Iterable[nn.Parameter] = module.parameters()
    return sum(tensor.nbytes for tensor in tensors)
