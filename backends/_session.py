"""Session: one loaded graph, whichever runtime runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from router.manifest import TensorRecord


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input as the graph takes it; `None` in `shape` is an axis that may vary."""

    dtype: torch.dtype
    shape: tuple[int | None, ...]

    def takes(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == len(self.shape) and all(
            mine is None or mine == theirs for mine, theirs in zip(self.shape, shape, strict=True)
        )


class Session(Protocol):
    """A graph in memory. Runs on one thread at a time."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]: ...

    def run(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs by name, in the graph's order; later runs leave them as they are.

        `feeds` are of the dtypes of `inputs`, and on the session's device. Raises `RuntimeError`.
        """
        ...


class Runtime(Protocol):
    """What opens graphs on one device, with one set of settings."""

    @property
    def version(self) -> str: ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What an operator should know of it."""
        ...

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes of exports that it can run."""
        ...

    @property
    def memory_factor(self) -> float:
        """Bytes that a loaded graph takes, per byte of its weights on disk."""
        ...

    def open(self, file: Path, inputs: Sequence[TensorRecord] = ()) -> Session:
        """Load a graph, whose inputs a manifest tells. Raises `LoadError`.

        Blocking, for seconds; for minutes where TensorRT builds for their shapes the first time.
        """
        ...
