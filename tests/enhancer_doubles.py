"""An enhancer that a test holds in its hands, as a third party's is reached: by its import string."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from router.enhancer import EnhanceConfig

KIND = "tests.enhancer_doubles:Loud"


class Loud:
    """Answers with the prompt in capitals, once its gate is open; or raises what the test says."""

    made: ClassVar[list[Loud]] = []

    def __init__(self, config: EnhanceConfig) -> None:
        self.config = config
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked: list[tuple[str, int]] = []
        self.fails: list[BaseException] = []
        self.opened = self.closed = self.cancelled = 0
        self.made.append(self)
        for name, value in config.options.items():
            setattr(self, name, value)

    async def open(self) -> None:
        self.opened += 1
        await self._fail()

    async def enhance(self, prompt: str, seed: int) -> str:
        self.asked.append((prompt, seed))
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # the work has an end of its own
            self.cancelled += 1
            raise
        await self._fail()
        return prompt.upper()

    async def close(self) -> None:
        self.closed += 1

    async def _fail(self) -> None:
        if self.fails:
            raise self.fails.pop(0)


def loud(**settings: Any) -> EnhanceConfig:
    return EnhanceConfig(kind=KIND, **settings)


def the_one() -> Loud:
    (only,) = Loud.made
    return only


@pytest.fixture(autouse=True)
def _forget_enhancers() -> Iterator[None]:
    Loud.made.clear()
    yield
    Loud.made.clear()
