"""PromptAbility: whether an instance reads prompts beyond its window, and weights in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.request import GenerateRequest


@dataclass(frozen=True, slots=True)
class PromptAbility:
    """`lacking` says why neither can be had; empty: both can."""

    lacking: str = "it takes prompts as they are and encodes them elsewhere"

    def why_not(self, request: GenerateRequest) -> str | None:
        """Why the request cannot be served here."""
        if request.long_prompt == "chunk" and self.lacking:
            return f'`long_prompt` cannot be "chunk": {self.lacking}.'
        if request.prompt_weighting and self.lacking:
            return f"`prompt_weighting` cannot be had: {self.lacking}."
        return None


AS_THEY_ARE = PromptAbility()
WHOLE = PromptAbility("")
