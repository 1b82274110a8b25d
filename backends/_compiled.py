"""Compiled: `torch.compile` of a denoiser for the shapes that were warmed up; others run as they are.

So no request ever waits for a compiler: what a shape costs is paid at load, and a request of a shape
that was not foreseen costs what it would cost without a compiler.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch.utils import _pytree as pytree

_LOG = logging.getLogger("router.backends")

Compile: TypeAlias = Callable[..., Any]
Part: TypeAlias = Literal["whole", "blocks"]

REPEATED: Mapping[str, tuple[str, ...]] = {"SD3Transformer2DModel": ("JointTransformerBlock",)}
"""Class name -> the classes of its repeated blocks, where Diffusers' own `_repeated_blocks` are missing."""

GRAPH_RUNS = 3
"""Until a CUDA graph is replayed: torch warms up in the first run and records in the second."""

_PLAIN = (str, int, float, bool, torch.dtype, type(None))
_LEAST_VARIANTS = 64


class Compiled:
    """Stands for a denoiser in its `Gathering`. A shape that comes while `warming` is compiled.

    `part` is what is compiled: the `whole` module, which runs fastest, or its repeated `blocks` each,
    which is compiled several times sooner. `graphs` records CUDA graphs; what they return is copied, as
    the next run writes over it. `compiler` takes the place of `torch.compile`.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        part: Part = "whole",
        *,
        graphs: bool = False,
        compiler: Compile = torch.compile,
    ) -> None:
        self.warming = False
        self._module = module
        self._graphs = graphs
        self._known: set[Hashable] = set()
        self._passed_over: set[Hashable] = set()
        self._blocks: dict[torch.nn.Module, Any] = {}
        self._whole: Callable[..., Any] = module
        if part == "blocks":
            self._blocks = {
                block: compiler(block._call_impl, dynamic=False) for block in repeated_blocks(module)
            }
        elif graphs:
            self._whole = compiler(module, dynamic=False, mode="reduce-overhead")
        else:
            self._whole = compiler(module, dynamic=False)

    def __call__(self, **values: Any) -> Any:
        values = pytree.tree_map_only(torch.Tensor, _laid_out, values)
        shapes = _shapes(values)
        if self.warming and shapes not in self._known:
            allow_variants()
            for _ in range(GRAPH_RUNS if self._graphs else 1):
                self._run(values)
            self._known.add(shapes)
        if shapes in self._known and not has_adapters(self._module):
            return self._run(values)
        self._tell(shapes)
        return self._module(**values)

    def _run(self, values: Mapping[str, Any]) -> Any:
        if not self._graphs:
            with self._compiled_blocks():
                return self._whole(**values)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return pytree.tree_map_only(torch.Tensor, torch.clone, self._whole(**values))

    @contextlib.contextmanager
    def _compiled_blocks(self) -> Iterator[None]:
        """What `torch.nn.Module.compile` switches on for good is on for one run."""
        for block, call in self._blocks.items():
            block._compiled_call_impl = call
        try:
            yield
        finally:
            for block in self._blocks:
                block._compiled_call_impl = None

    def _tell(self, shapes: Hashable) -> None:
        if shapes not in self._passed_over:
            self._passed_over.add(shapes)
            _LOG.info("%s runs uncompiled for shapes that were not warmed up", type(self._module).__name__)


def repeated_blocks(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Raises `ValueError` for a class whose repeated blocks nobody has named."""
    kind = type(module).__name__
    names = getattr(module, "_repeated_blocks", None) or REPEATED.get(kind, ())
    found = [part for part in module.modules() if type(part).__name__ in names]
    if not found:
        raise ValueError(f"{kind} has no repeated blocks that are known")
    return found


def _laid_out(tensor: torch.Tensor) -> torch.Tensor:
    """One layout for each shape: a compiler takes every other order of strides for another input."""
    return tensor.clone(memory_format=torch.contiguous_format) if tensor.ndim > 1 else tensor


def _shapes(values: Mapping[str, Any]) -> Hashable:
    """What a compiler would tell apart. A value of no plain type is told by its type alone."""
    leaves, structure = pytree.tree_flatten(dict(values))
    return str(structure), *map(_shape, leaves)


def _shape(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return tuple(leaf.shape), leaf.dtype, leaf.device
    return leaf if isinstance(leaf, _PLAIN) else type(leaf)


def has_adapters(module: torch.nn.Module) -> bool:
    """Whether a LoRA is in the module: its code is another one then, and would be compiled anew."""
    return bool(getattr(module, "_hf_peft_config_loaded", False))


def allow_variants() -> None:
    """torch gives up after 8 variants of one piece of code; sizes times row buckets are soon more.

    The setting is one of the thread's, which is why it is made where the compiler runs.
    """
    settings: Any = torch._dynamo.config
    name = "recompile_limit" if hasattr(settings, "recompile_limit") else "cache_size_limit"  # torch 2.6
    setattr(settings, name, max(getattr(settings, name), _LEAST_VARIANTS))
