"""Quicker: what stands in the places of one instance's denoisers, and how it is made ready at load."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from backends import _speed
from backends._compiled import Compiled
from backends._fastest import FastestAttention
from backends._speed import SpeedOptions
from backends._warm_up import warm_up

if TYPE_CHECKING:
    from backends._pipeline import PipelineBackend


class Quicker:
    """Compiled denoisers, and those whose attention is chosen by measuring. Holds none once warmed up."""

    def __init__(self, options: SpeedOptions, instance: str, *, race_attention: bool = False) -> None:
        self._options = options
        self._instance = instance
        self._race_attention = race_attention
        self._compiled: dict[str, Compiled] = {}
        self._raced: dict[str, FastestAttention] = {}

    def of(self, name: str, module: torch.nn.Module) -> Callable[..., Any] | None:
        """What runs in the denoiser's place; `None` is itself."""
        compiled = _speed.compiled(self._options, module, self._instance)
        if compiled is not None:
            self._compiled[name] = compiled
        if not self._race_attention:
            return compiled
        self._raced[name] = FastestAttention(compiled or module, f"{self._instance}, {name}")
        return self._raced[name]

    def warm_up(self, backend: PipelineBackend, own_size: tuple[int, int]) -> tuple[str, ...]:
        """Inside the task that loads the backend. What was measured, a note for each denoiser."""
        raced, self._raced = self._raced, {}
        compiled, self._compiled = self._compiled, {}
        if raced:  # before anything is compiled, which keeps the attention that it is compiled with
            warm_up(backend, raced, [own_size], [backend.row_limit])
        if compiled:
            warm_up(backend, compiled, self._options.compile_sizes or [own_size], backend.row_buckets)
        return tuple(f"attention of {name}: {each.race}" for name, each in raced.items())
