"""Traced: a module's runs without its Python, once it has made many short ones.

A small denoiser on a CPU spends up to a third of a run in Python, between its kernels. Played from a trace,
the same kernels run on the same weights, and so the pictures stay the same, bit for bit: each new shape is
run both ways once, and where a bit differs, the module runs as it is. TorchScript is deprecated; what is to
follow it calls every kernel from Python again (`torch.export`, `torch.compile(backend="eager")`), or needs a
compiler. Where it is gone or fails, all runs are as they were.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch.utils import _pytree as pytree

from backends._building import BUILDING
from backends._compiled import has_adapters
from backends._trace import Place, Trace, architecture_of, make_trace, places_of

_LOG = logging.getLogger("router.backends")

AFTER_RUNS: Final = 100
"""A trace costs as much as the Python of about so many runs."""
LONGEST_S: Final = 0.5
"""Mean of those runs. Longer ones were not measured, and Python is a small part of them."""
_MOST_FORMS: Final = 4
_MOST_SHAPES: Final = 1024
_PLAIN = (str, int, float, bool, type(None))

_TRACES: dict[Hashable, Trace | None] = {}
"""Of the whole process: TorchScript frees none, and a model that is loaded again finds its own here."""


class _Ready(NamedTuple):
    """A trace, and where the weights of one module lie for it."""

    trace: Trace
    places: Sequence[Place]

    def play(self, tensors: Sequence[torch.Tensor]) -> Any:
        return self.trace.play(self.places, tensors)


class Traced:
    """Stands for a module of a CPU in its `Gathering`, or for one of its methods."""

    def __init__(self, module: torch.nn.Module, method: str = "", *, after_runs: int = AFTER_RUNS) -> None:
        self._module = module
        self._method = method
        self._run: Callable[..., Any] = getattr(module, method) if method else module
        self._after_runs = after_runs
        self._runs = 0
        self._seconds = 0.0
        self._traces: dict[Hashable, _Ready | None] = {}
        self._equal: dict[Hashable, bool] = {}

    def __call__(self, **values: Any) -> Any:
        if self._runs < self._after_runs:
            return self._timed(values)
        if self._seconds > LONGEST_S * self._runs or has_adapters(self._module):
            return self._run(**values)
        leaves, structure = pytree.tree_flatten(values)
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        form = (str(structure), *map(_form, leaves))
        ready = self._traces[form] if form in self._traces else self._learned(form, leaves, structure)
        shapes = (form, *[(tensor.shape, tensor.stride()) for tensor in tensors])
        if ready is None or self._equal.get(shapes) is False:
            return self._run(**values)
        if shapes in self._equal:
            return ready.play(tensors)
        return self._compared(ready, tensors, shapes, values)

    def _timed(self, values: Mapping[str, Any]) -> Any:
        started = time.perf_counter()
        made = self._run(**values)
        self._seconds += time.perf_counter() - started
        self._runs += 1
        return made

    def _compared(
        self, ready: _Ready, tensors: Sequence[torch.Tensor], shapes: Hashable, values: Mapping[str, Any]
    ) -> Any:
        """Run as it is; from the next run on this shape is played, if that gives the same bits."""
        expected = self._run(**values)
        try:
            found = ready.play(tensors)
            equal = all(map(torch.equal, pytree.tree_leaves(expected), pytree.tree_leaves(found)))
        except RuntimeError:  # a size that the trace takes for a constant
            equal = False
        if len(self._equal) >= _MOST_SHAPES:
            self._equal.clear()
        self._equal[shapes] = equal
        if not equal:
            _LOG.info("%s runs as it is for a shape whose trace differs", type(self._module).__name__)
        return expected

    def _learned(
        self, form: tuple[Hashable, ...], leaves: Sequence[Any], structure: pytree.TreeSpec
    ) -> _Ready | None:
        """The trace of this form, found or made; `None` also where that has to wait for a model's load."""
        if None in form or len(self._traces) >= _MOST_FORMS or not BUILDING.acquire(blocking=False):
            return None
        try:
            places = places_of(self._module)
            key = architecture_of(self._module), self._method, form
            if key not in _TRACES:
                _TRACES[key] = self._made(places, leaves, structure)
            trace = _TRACES[key]
            self._traces[form] = None if trace is None else _Ready(trace, places)
        finally:
            BUILDING.release()
        return self._traces[form]

    def _made(
        self, places: Sequence[Place], leaves: Sequence[Any], structure: pytree.TreeSpec
    ) -> Trace | None:
        name, started = type(self._module).__name__, time.perf_counter()
        try:
            trace = make_trace(self._run, places, leaves, structure)
        except Exception:  # noqa: BLE001 -- a library that goes away: without it all goes on as it was
            _LOG.info("%s cannot be traced, and runs as it is", name, exc_info=True)
            return None
        seconds = time.perf_counter() - started
        _LOG.info("%s was traced in %.2f s; its runs are played from now on", name, seconds)
        return trace


def _form(leaf: Any) -> Hashable:
    """What a trace is made for: sizes are looked at apart. `None` for a value that cannot be told."""
    if isinstance(leaf, torch.Tensor):
        return leaf.dtype, leaf.device.type, leaf.ndim
    return (type(leaf), leaf) if isinstance(leaf, _PLAIN) else None
