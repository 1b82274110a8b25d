"""Prompts as embeddings, by Compel: in windows where they are long, weighted where they have weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from compel import Compel, ReturnedEmbeddingsType

from backends._weights import Piece, plain

_STATES = {
    1: ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED,
    2: ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED,
}
"""Stable Diffusion has one text encoder, XL has two, of which the second makes a summary too."""

Pieces = Sequence[Piece]


def embeddings(pipeline: Any, prompt: Pieces, negative: Pieces | None) -> dict[str, torch.Tensor]:
    """The arguments of the pipeline's `__call__` that stand for both prompts, of equal length.

    A prompt is split at the end of a sentence, phrase or word, and each part read in a window of its
    own; the shorter of the two is filled up with empty windows. XL's summary reads the first window
    alone, without weights: there is one for the whole picture. Runs inside a task.
    """
    encoders = _encoders(pipeline)
    texts = [prompt] if negative is None else [prompt, negative]
    columns = [compel.pad_conditioning_tensors_to_same_length(_read(compel, texts)) for compel in encoders]
    joined = [torch.cat(parts, dim=-1) for parts in zip(*columns, strict=True)]  # [1, windows * 77, width]
    found = dict(zip(("prompt_embeds", "negative_prompt_embeds"), joined, strict=False))
    if pipeline.components.get("text_encoder_2") is None:
        return found
    pooled = [_summary(encoders[-1], text) for text in texts]  # [1, width]
    return found | dict(zip(("pooled_prompt_embeds", "negative_pooled_prompt_embeds"), pooled, strict=False))


def _encoders(pipeline: Any) -> list[Compel]:
    """One for each text encoder. XL's refiner has the second alone."""
    has_two = "text_encoder_2" in pipeline.components
    names = [("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")]
    pairs = [(getattr(pipeline, t, None), getattr(pipeline, e, None)) for t, e in names]
    return [
        Compel(
            tokenizer=tokenizer,
            text_encoder=encoder,
            truncate_long_prompts=False,
            returned_embeddings_type=_STATES[1 + has_two],
            device=pipeline._execution_device,
        )
        for tokenizer, encoder in pairs
        if encoder is not None
    ]


def _read(compel: Compel, texts: Sequence[Pieces]) -> list[torch.Tensor]:
    return [
        compel.conditioning_provider.get_embeddings_for_weighted_prompt_fragments(
            text_batch=[[piece.text for piece in pieces]],
            fragment_weights_batch=[[piece.weight for piece in pieces]],
            device=compel.device,
        )
        for pieces in texts
    ]


def _summary(compel: Compel, pieces: Pieces) -> torch.Tensor:
    pooled: torch.Tensor = compel.conditioning_provider.get_pooled_embeddings(
        [plain(pieces)], device=compel.device
    )
    return pooled
