"""Progress: what an export tells about itself while it runs."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told from the thread that works; it must return at once."""

    def begin(self, stage: str, total: int) -> None:
        """A stage of so many steps begins: `export`, `gate`."""

    def step(self, name: str) -> None:
        """The step of this name begins, and the one before is done."""

    def note(self, sentence: str) -> None:
        """What whoever asked for the export should know."""


class Silent:
    """For whom nobody watches."""

    def begin(self, stage: str, total: int) -> None:
        pass

    def step(self, name: str) -> None:
        pass

    def note(self, sentence: str) -> None:
        pass
