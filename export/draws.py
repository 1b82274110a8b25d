"""How example inputs are drawn: values of the size that a pipeline gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from export.components import Draw
from router.types import ShapeProfile


def normal(deviation: float = 1.0, mean: float = 0.0) -> Draw:
    """Latents and embeddings."""
    return lambda profile, shape, generator: torch.randn(shape, generator=generator) * deviation + mean


def uniform(low: float, high: float) -> Draw:
    """Timesteps, guidance and pixels; one value for each row."""
    return lambda profile, shape, generator: low + (high - low) * torch.rand(shape, generator=generator)


def zeros(profile: ShapeProfile, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.zeros(shape)


def clip_tokens(config: dict[str, Any]) -> Draw:
    """Start, words, end, and the end again as padding."""
    vocabulary = config.get("vocab_size", 49408)
    start, end = config.get("bos_token_id", 49406), config.get("eos_token_id", 49407)
    if end == 2:  # what configurations of before transformers 4.24 say, whatever the tokenizer's ids are
        start, end = vocabulary - 2, vocabulary - 1

    def draw(profile: ShapeProfile, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        ids = torch.randint(0, max(1, min(start, end)), shape, generator=generator)
        ids[:, 0] = start
        _end_rows(ids, end, end, generator)
        return ids

    return draw


def t5_tokens(config: dict[str, Any]) -> Draw:
    """Words, end, padding."""
    end, padding = config.get("eos_token_id", 1), config.get("pad_token_id", 0)

    def draw(profile: ShapeProfile, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        ids = torch.randint(2, config.get("vocab_size", 32128), shape, generator=generator)
        _end_rows(ids, end, padding, generator)
        return ids

    return draw


def _end_rows(ids: Tensor, end: int, padding: int, generator: torch.Generator) -> None:
    """Each row ends somewhere of its own, not before its second token."""
    rows, length = ids.shape
    for row, at in enumerate(torch.randint(1, length, (rows,), generator=generator).tolist()):
        ids[row, at] = end
        ids[row, at + 1 :] = padding


def time_ids(profile: ShapeProfile, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Original size, crop and target size, as the pipeline fills them in."""
    size = (profile.height, profile.width)
    return torch.tensor((*size, 0, 0, *size), dtype=torch.float32)[: shape[1]].repeat(shape[0], 1)


def image_positions(side: int) -> Draw:
    def draw(profile: ShapeProfile, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        rows, columns = torch.arange(profile.height // side), torch.arange(profile.width // side)
        return torch.cartesian_prod(torch.zeros(1, dtype=rows.dtype), rows, columns).float()

    return draw
