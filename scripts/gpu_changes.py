"""The settings that bench_gpu compares one by one, each around one call of a denoiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import diffusers
import torch

from backends import _attention, _fp8, _speed
from backends._compiled import Compiled
from backends._fastest import SDPA_KERNELS, only_kernel
from scripts.gpu_card import Card
from scripts.gpu_ways import Captured


def changes(captured: Captured, card: Card, dtype: torch.dtype) -> Iterator[tuple[str, Any]]:
    """Name and what makes the call inside. All but the last one are undone."""
    module = captured.module
    for kernel in SDPA_KERNELS if card.is_cuda else ():
        yield f"attention {kernel}", _within(only_kernel(kernel), captured)
    for kernel, by_it in _attention.installed(module).items():
        yield f"attention {kernel}", _within(by_it(), captured)
    if isinstance(module, diffusers.UNet2DConditionModel):
        yield "channels_last", _channels_last(captured)
    if card.is_cuda and dtype == torch.float32:
        yield "tf32", _tf32(captured)
    if not getattr(module.config, "dual_attention_layers", ()):
        yield "fuse_qkv", _fused(captured)
    yield "compile blocks", nullcontext(_compiled(captured, "blocks"))
    if card.is_cuda:
        yield "compile whole", nullcontext(_compiled(captured, "whole"))
        yield "compile whole, CUDA graphs", nullcontext(_compiled(captured, "whole", graphs=True))
    if card.is_cuda and _speed.has_fp8():
        yield "fp8, blocks compiled", _in_fp8(captured)  # the last one: it stays


def _compiled(captured: Captured, part: Any, *, graphs: bool = False) -> Callable[[], Any]:
    names = list(captured.values)
    compiled = Compiled(captured.module, part, graphs=graphs)
    compiled.warming = True
    positional = dict(zip(("sample", "timestep"), captured.args, strict=False))
    assert not positional.keys() & set(names)
    return lambda: compiled(**positional, **captured.values)


@contextmanager
def _within(context: Any, captured: Captured) -> Iterator[Callable[[], Any]]:
    with context:
        yield captured


@contextmanager
def _tf32(captured: Captured) -> Iterator[Callable[[], Any]]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        yield captured
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextmanager
def _channels_last(captured: Captured) -> Iterator[Callable[[], Any]]:
    captured.module.to(memory_format=torch.channels_last)
    try:
        yield captured
    finally:
        captured.module.to(memory_format=torch.contiguous_format)


@contextmanager
def _fused(captured: Captured) -> Iterator[Callable[[], Any]]:
    captured.module.fuse_qkv_projections()
    try:
        yield captured
    finally:
        captured.module.unfuse_qkv_projections()


@contextmanager
def _in_fp8(captured: Captured) -> Iterator[Callable[[], Any]]:
    _fp8.quantize(captured.module)
    yield _compiled(captured, "blocks")
