"""Prompts are never cut in silence: what the text encoders cannot read is refused with its length."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter
from typing import Any

from router.errors import InvalidRequestError
from router.request import GenerateRequest


def check_prompt(
    pipeline: Any,
    request: GenerateRequest,
    parameters: Mapping[str, Parameter],
    t5_window: int | None = None,
) -> None:
    """Raise `InvalidRequestError` when a prompt has more tokens than the longest text window.

    `t5_window` is what a T5 encoder was told to read, `None` the pipeline's own default.

    Families with several text encoders are judged by the one that reads most (T5); their CLIP
    encoders only add a summary and are made to be cut at 77 tokens.
    """
    tokenizer, window = _longest(pipeline, parameters, t5_window)
    for field in ("prompt", "negative_prompt"):
        text = getattr(request, field)
        if tokenizer is None or not text:
            continue
        count = len(tokenizer(text, truncation=False, verbose=False).input_ids)
        if count > window:
            raise InvalidRequestError(
                f"`{field}` has {count} tokens with its marks, and the model reads {window}; shorten it.",
                param=field,
            )


def _longest(pipeline: Any, parameters: Mapping[str, Parameter], t5_window: int | None) -> tuple[Any, int]:
    for name in ("tokenizer_3", "tokenizer_2", "tokenizer"):
        tokenizer = getattr(pipeline, name, None)
        if tokenizer is not None and "T5" in type(tokenizer).__name__:
            return tokenizer, t5_window or _t5_window(parameters)
    tokenizer = getattr(pipeline, "tokenizer", None)
    return tokenizer, getattr(tokenizer, "model_max_length", 0)


def _t5_window(parameters: Mapping[str, Parameter]) -> int:
    """`max_sequence_length` of the pipeline's `__call__`: what it reads when nothing else is said."""
    parameter = parameters.get("max_sequence_length")
    return int(parameter.default) if parameter is not None else 77
