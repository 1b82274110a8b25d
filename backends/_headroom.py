"""Headroom: for how many rows a CUDA device has room at this moment, by what rows were measured to take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

from backends._gauge import Gauge

Room: TypeAlias = Callable[[torch.Tensor], int | None]
"""Latents of one call -> rows of such latents for which there is room now; `None` is not known."""

SPARE = 0.95
"""Of the free bytes, what is counted on: the rest is lost between blocks."""


def headroom(gauge: Gauge, free_bytes: Callable[[], int]) -> Room:
    """Asked once a tick. Until a run was measured it knows nothing, and the configured limit stands."""

    def rows(latents: torch.Tensor) -> int | None:
        taken = gauge.row_bytes(latents)
        return None if taken is None else max(1, int(SPARE * free_bytes()) // taken)

    return rows


def cuda_free_bytes(device: str) -> int:
    """What the driver has left, and what torch holds and does not use. The device is not waited for."""
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_stats_as_nested_dict(device)  # flattened, it takes several times as long
    reserved, used = (held[kind]["all"]["current"] for kind in ("reserved_bytes", "allocated_bytes"))
    return int(free + reserved - used)
