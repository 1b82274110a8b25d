"""Joining tensors along the batch axis, and splitting what comes of it; timesteps as rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree


def has_rows(tensor: torch.Tensor, rows: int) -> bool:
    return tensor.ndim > 0 and tensor.shape[0] == rows


def padded(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """With its last row repeated up to `rows`. Not by an index: a GPU would wait for it to come."""
    missing = rows - tensor.shape[0]
    return torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])]) if missing else tensor


def timestep_dtype(value: Any) -> Hashable:
    """Scalars become float32 rows, so schedulers with integer and real timesteps share a tick."""
    return value.dtype if isinstance(value, torch.Tensor) and value.ndim else torch.float32


def timestep_rows(timestep: Any, rows: int) -> torch.Tensor:
    """A timestep as [rows]. Exact in float32: Diffusers' time embedding casts to it anyway."""
    if isinstance(timestep, torch.Tensor) and timestep.ndim:
        return timestep.expand(rows)
    return torch.as_tensor(timestep, dtype=torch.float32).expand(rows)


def joined_timesteps(parts: Sequence[torch.Tensor], device: torch.device | None) -> torch.Tensor:
    """All rows on the device; those that come from the CPU go in one copy, where all do."""
    if device is None or all(part.device == device for part in parts):
        return torch.cat(list(parts))
    if all(part.device.type == "cpu" for part in parts):
        return moved(torch.cat(list(parts)), device)
    return torch.cat([moved(part, device) for part in parts])


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device. A copy to a GPU is only begun: from pinned memory nobody waits for it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def concatenate(parts: Sequence[Any]) -> Any:
    """Join outputs or arguments of equal structure, tensor by tensor, along the batch axis."""
    if len(parts) == 1:
        return parts[0]
    flat = [pytree.tree_flatten(part) for part in parts]
    structure = flat[0][1]
    columns = zip(*(leaves for leaves, _ in flat), strict=True)
    joined = [torch.cat(column) if isinstance(column[0], torch.Tensor) else column[0] for column in columns]
    return pytree.tree_unflatten(joined, structure)


def split(output: Any, rows: Sequence[int]) -> list[Any]:
    """The output of a joined run, cut into one of the same structure for each count of rows."""
    leaves, structure = pytree.tree_flatten(output)
    columns = [
        torch.split(leaf, list(rows)) if isinstance(leaf, torch.Tensor) else [leaf] * len(rows)
        for leaf in leaves
    ]
    return [pytree.tree_unflatten([column[i] for column in columns], structure) for i in range(len(rows))]
