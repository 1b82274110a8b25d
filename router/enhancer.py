"""PromptEnhancer: what makes a fuller prompt of a short one, ours or a third party's, and its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

INSTRUCTION = (
    "You write prompts for an image-generation model. Rewrite what the user wants as one vivid, concrete"
    " description of a single picture: subject, setting, light, style. Keep everything that the user named."
    " Answer with the prompt alone, in one paragraph of at most 60 words."
)

_Count: TypeAlias = Annotated[int, Field(ge=1)]


class EnhanceConfig(BaseModel):
    """The `[enhance]` table: which enhancer, and what is asked of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Annotated[str, Field(min_length=1)]
    """`transformers`, `chat`, or an import string `package.module:Class`."""
    source: str = ""
    """Folder of a text-generation model, or the address of a chat service up to and with its `/v1`."""
    model: str = ""
    """What the chat service calls the model."""
    key_variable: str = ""
    """Environment variable that holds the chat service's key; the key itself stands in no file."""
    instruction: str = INSTRUCTION
    """What a chat model is told before the prompt. A model without a chat template only goes on writing."""
    by_default: bool = False
    """Whether requests are enhanced that leave `enhance` out."""
    on_failure: Literal["error", "original"] = "error"
    """What becomes of a request whose prompt could not be enhanced."""
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.0
    """0 takes the likeliest words; above it they are drawn by the request's seed (0 where it has none)."""
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 120
    """Most tokens of an answer."""
    max_characters: Annotated[int, Field(ge=1, le=10_000)] = 2000
    """A longer answer is a failure: nothing is cut."""
    limit_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    """Seconds that one answer may take; a longer one is a failure."""
    at_once: _Count = 4
    """Answers asked for at the same time; the others wait, which `limit_s` does not count."""
    cache: Annotated[int, Field(ge=0)] = 256
    """Answers that are kept, the least recently used go first."""
    device: str = "cpu"
    """Where a local model runs."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """`auto` is the one that its folder names."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Settings of a third party's enhancer; ours have none."""


class PromptEnhancer(Protocol):
    """Makes prompts out of prompts. All methods are called on the event loop and must not block it."""

    async def open(self) -> None:
        """Make ready; called before the first `enhance`, and again after it failed. Raises `EnhanceError`."""
        ...

    async def enhance(self, prompt: str, seed: int) -> str:
        """A prompt for what `prompt` means; equal prompts and seeds give equal answers where that can be had.

        Raises `EnhanceError`. When cancelled, returns or raises only after the work has really ended.
        """
        ...

    async def close(self) -> None:
        """Let everything go. Called when no `enhance` is running."""
        ...


EnhancerFactory: TypeAlias = Callable[[EnhanceConfig], PromptEnhancer]
"""What an import string in the registry leads to; usually the enhancer's class. Raises `ConfigError`."""
