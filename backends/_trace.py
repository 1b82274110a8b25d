"""Trace: which kernels a run of a module calls, written down by TorchScript's tracer, to be played again.

The weights are arguments of a trace, so that it is of an architecture and not of one model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from torch.utils import _pytree as pytree

Place: TypeAlias = tuple[dict[str, Any], str]
"""Where a weight or buffer lies."""

_UNTIL_SETTLED: Final = 3
"""Plays: TorchScript watches the first, and changes its plan for the next."""


@dataclass(frozen=True, slots=True)
class Trace:
    """`kernels` take the weights, then the tensors among the arguments; `structure` is the outcome's."""

    kernels: Callable[..., tuple[torch.Tensor, ...]]
    structure: pytree.TreeSpec

    def play(self, places: Sequence[Place], tensors: Sequence[torch.Tensor]) -> Any:
        """What the module would return. `tensors` are those among the leaves of its arguments."""
        made = self.kernels(*weights_in(places), *tensors)
        return pytree.tree_unflatten(list(made), self.structure)


def make_trace(
    run: Callable[..., Any], places: Sequence[Place], leaves: Sequence[Any], structure: pytree.TreeSpec
) -> Trace:
    """Of a run with these arguments, as pytree flattens them. Raises whatever TorchScript raises.

    The caller holds `BUILDING`: tracers share state, and for the while the weights are the tracer's own.
    """
    weights = weights_in(places)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    found: list[pytree.TreeSpec] = []

    def flat(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        arguments = iter(given[len(weights) :])
        taken = [next(arguments) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        with _put(places, given[: len(weights)]):
            made = run(**pytree.tree_unflatten(taken, structure))
        parts, structure_of_it = pytree.tree_flatten(made)
        found.append(structure_of_it)
        return tuple(parts)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and takes sizes for constants
        kernels: Any = torch.jit.trace(flat, (*weights, *tensors), check_trace=False)  # type: ignore[no-untyped-call]
    for _ in range(_UNTIL_SETTLED):
        kernels(*weights, *tensors)
    return Trace(kernels, found[0])


def places_of(module: torch.nn.Module) -> list[Place]:
    """Of all its weights and buffers."""
    stores = [store for part in module.modules() for store in (part._parameters, part._buffers)]
    return [(store, name) for store in stores for name, tensor in store.items() if tensor is not None]


def weights_in(places: Sequence[Place]) -> list[torch.Tensor]:
    return [store[name] for store, name in places]


def architecture_of(module: torch.nn.Module) -> Hashable:
    """Equal for modules whose traces are. Its parts with their settings, weights' layouts, configuration."""
    processors = getattr(module, "attn_processors", {})
    kinds = [(name, type(processor)) for name, processor in processors.items()]
    layouts = [(each.shape, each.dtype, each.stride()) for each in weights_in(places_of(module))]
    return type(module), str(module), str(getattr(module, "config", "")), tuple(kinds), tuple(layouts)


@contextmanager
def _put(places: Sequence[Place], tensors: Sequence[torch.Tensor]) -> Iterator[None]:
    """These tensors in the places of the weights."""
    before = weights_in(places)
    for (store, name), tensor in zip(places, tensors, strict=True):
        store[name] = tensor
    try:
        yield
    finally:
        for (store, name), tensor in zip(places, before, strict=True):
            store[name] = tensor
