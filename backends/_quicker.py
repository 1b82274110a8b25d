"""Quicker: what stands in the places of one instance's denoisers, and how it is made ready at load."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from backends import _attention, _speed
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
        self.choices: dict[str, str] = {}
        """What was compared, and the fastest way: known before it is warmed up, or found then."""

    def of(self, name: str, module: torch.nn.Module) -> Callable[..., Any] | None:
        """What runs in the denoiser's place; `None` is itself."""
        compiled = _speed.compiled(self._options, module, self._instance)
        if compiled is not None:
            self._compiled[name] = compiled
        if not self._race_attention:
            return compiled
        others = _attention.installed(module)
        self._raced[name] = FastestAttention(compiled or module, f"{self._instance}, {name}", others=others)
        return self._raced[name]

    def warm_up(self, backend: PipelineBackend, own_size: tuple[int, int]) -> tuple[str, ...]:
        """Inside the task that loads the backend. What was measured, a note for each denoiser."""
        raced, self._raced = self._raced, {}
        compiled, self._compiled = self._compiled, {}
        self._race(backend, raced, own_size)  # before anything is compiled, which keeps its attention
        if compiled:
            warm_up(backend, compiled, self._options.compile_sizes or [own_size], backend.row_buckets)
        return tuple(f"attention of {name}: {each.race}" for name, each in raced.items())

    def _race(
        self, backend: PipelineBackend, raced: dict[str, FastestAttention], own_size: tuple[int, int]
    ) -> None:
        """Those that no earlier load has measured, at full rows."""
        height, width = own_size
        what = {name: f"attention of {name}, {backend.row_limit} rows of {width}x{height}" for name in raced}
        for name, each in raced.items():
            each.remember(self.choices.get(what[name]))
        unknown = {name: each for name, each in raced.items() if each.race is None}
        if unknown:
            warm_up(backend, unknown, [own_size], [backend.row_limit])
        self.choices = {what[name]: each.race.winner for name, each in raced.items() if each.race}
