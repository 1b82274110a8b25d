"""Prompts are never cut in silence: what a text encoder cannot read at once is read in parts, or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import Any, Literal, TypeAlias

from backends._weights import Piece, is_weighted, pieces_of, plain
from router.errors import InvalidRequestError
from router.request import GenerateRequest

LongPrompt: TypeAlias = Literal["refuse", "chunk"]
_FIELDS = ("prompt", "negative_prompt")


def prompt_arguments(
    pipeline: Any,
    request: GenerateRequest,
    parameters: Mapping[str, Parameter],
    t5_window: int | None = None,
    long_prompt: LongPrompt = "refuse",
    can_chunk: bool = False,
) -> dict[str, Any]:
    """The prompts in the words of the pipeline's `__call__`: text, or embeddings where text does not do.

    `t5_window` is what a T5 encoder was told to read, `None` the pipeline's own default; `long_prompt`
    counts where the request says nothing. Raises `InvalidRequestError` when a prompt has more tokens
    than the longest text window and is not to be read in parts. Runs inside a task.

    Families with several text encoders are judged by the one that reads most (T5); their CLIP
    encoders only add a summary and are made to be cut at 77 tokens.
    """
    pieces = {name: _pieces(request, name) for name in _FIELDS if getattr(request, name) is not None}
    texts = {name: plain(parts) for name, parts in pieces.items()}
    tokenizer, window = _longest(pipeline, parameters, t5_window)
    chunk = (request.long_prompt or long_prompt) == "chunk"
    too_long = False
    for name, text in texts.items():
        count = _count(tokenizer, text)
        too_long = too_long or count > window
        if count > window and not chunk:
            raise _too_long(name, count, window, can_chunk)
    if not too_long and not any(map(is_weighted, pieces.values())):
        return texts
    return _embedded(pipeline, request, pieces)


def _pieces(request: GenerateRequest, name: str) -> list[Piece]:
    text = getattr(request, name)
    return pieces_of(text, name) if request.prompt_weighting else [Piece(text)]


def _embedded(
    pipeline: Any, request: GenerateRequest, pieces: Mapping[str, Sequence[Piece]]
) -> dict[str, Any]:
    """What makes a difference: without guidance no negative prompt does, and XL has zeros for none."""
    from backends._prompt_embeddings import embeddings

    negative = pieces.get("negative_prompt")
    if negative is None and not pipeline.config.get("force_zeros_for_empty_prompt"):
        negative = [Piece("")]
    if request.guidance_scale is None or request.guidance_scale <= 1:
        negative = None
    return embeddings(pipeline, pieces["prompt"], negative)


def _count(tokenizer: Any, text: str) -> int:
    if tokenizer is None or not text:
        return 0
    return len(tokenizer(text, truncation=False, verbose=False).input_ids)


def _longest(pipeline: Any, parameters: Mapping[str, Parameter], t5_window: int | None) -> tuple[Any, int]:
    for name in ("tokenizer_3", "tokenizer_2", "tokenizer"):
        tokenizer = getattr(pipeline, name, None)
        if tokenizer is not None and "T5" in type(tokenizer).__name__:
            return tokenizer, t5_window or _t5_window(parameters)
    tokenizer = getattr(pipeline, "tokenizer", None) or getattr(pipeline, "tokenizer_2", None)
    return tokenizer, getattr(tokenizer, "model_max_length", 0)


def _t5_window(parameters: Mapping[str, Parameter]) -> int:
    """`max_sequence_length` of the pipeline's `__call__`: what it reads when nothing else is said."""
    parameter = parameters.get("max_sequence_length")
    return int(parameter.default) if parameter is not None else 77


def _too_long(name: str, count: int, window: int, can_chunk: bool) -> InvalidRequestError:
    cure = 'shorten it, or set `long_prompt` to "chunk"' if can_chunk else "shorten it"
    return InvalidRequestError(
        f"`{name}` has {count} tokens with its marks, and the model reads {window}; {cure}.", param=name
    )
