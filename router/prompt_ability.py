"""PromptAbility: whether an instance reads prompts beyond its window, and weights in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.request import GenerateRequest


@dataclass(frozen=True, slots=True)
class PromptAbility:
    """`lacking` says why neither can be had; empty: both can."""

    lacking: str = "it takes prompts as they are and encodes them elsewhere"

    def reasons(self, request: GenerateRequest) -> Iterator[str]:
        """Why the request cannot be served here."""
        if request.long_prompt == "chunk" and self.lacking:
            yield f'`long_prompt` cannot be "chunk": {self.lacking}.'
        if request.prompt_weighting and self.lacking:
            yield f"`prompt_weighting` cannot be had: {self.lacking}."


AS_THEY_ARE = PromptAbility()
WHOLE = PromptAbility("")
