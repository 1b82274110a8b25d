"""Which instances read long prompts and weights, and what an instance is told about it."""

from __future__ import annotations

import importlib.util

from pydantic import BaseModel

from backends._prompt import LongPrompt
from router.errors import ConfigError
from router.prompt_ability import WHOLE, PromptAbility

_FAMILIES = frozenset({"stable-diffusion", "stable-diffusion-xl"})
"""Read by CLIP alone, whose windows their denoisers take side by side."""


class PromptOptions(BaseModel):
    """What becomes of prompts."""

    long_prompt: LongPrompt = "refuse"
    """Of a prompt beyond the text window, where the request does not say: `refuse`, or `chunk`."""


def ability(family: str) -> PromptAbility:
    """Whether prompts of this family can be encoded in parts and with weights here."""
    if family not in _FAMILIES:
        return PromptAbility(f"a {family} model reads a prompt whole, or not at all")
    if importlib.util.find_spec("compel") is None:
        return PromptAbility("it needs compel; pip install 'triptych[prompts]'")
    return WHOLE


def check(options: PromptOptions, found: PromptAbility, name: str) -> None:
    """Raises `ConfigError` for an option that can do nothing."""
    if options.long_prompt == "chunk" and found.lacking:
        raise ConfigError(f"{name}: option `long_prompt` cannot be 'chunk': {found.lacking}.")


def prepare(found: PromptAbility) -> None:
    """Import the library, on the thread that reads the model: on the lane's it would keep others waiting."""
    if not found.lacking:
        import backends._prompt_embeddings  # noqa: F401 -- for later
