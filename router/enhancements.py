"""Enhancements: whether a request's prompt is enhanced, by whom, and what becomes of a failure."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeAlias

from router import registry
from router.answers import Answers, AnswersStatistics
from router.deadline import Deadline
from router.enhancer import EnhanceConfig, EnhancerFactory, PromptEnhancer
from router.errors import (
    BackendUnavailableError,
    DeadlineExceededError,
    EnhanceError,
    InvalidRequestError,
    RouterError,
)
from router.request import GenerateRequest
from router.types import Enhancement, GenerateResult

ResolveEnhancer: TypeAlias = Callable[[str], EnhancerFactory]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as it goes to routing. `enhancement` is `None` where nothing was changed."""

    request: GenerateRequest
    enhancement: Enhancement | None = None
    notes: tuple[str, ...] = ()

    def told_in(self, result: GenerateResult, enhance_s: float) -> GenerateResult:
        """The result with what became of the prompt."""
        return dataclasses.replace(
            result,
            enhancement=self.enhancement,
            notes=self.notes + result.notes,
            timings=dataclasses.replace(result.timings, enhance_s=enhance_s),
        )


class Enhancements:
    """One enhancer, opened when first needed, and its answers. Belongs to one event loop."""

    def __init__(
        self, config: EnhanceConfig | None, resolve: ResolveEnhancer = registry.resolve_enhancer
    ) -> None:
        self._config = config
        self._resolve = resolve
        self._answers = Answers(config.cache if config else 0)
        self._opening: asyncio.Task[PromptEnhancer] | None = None
        self._places = asyncio.Semaphore(config.at_once if config else 1)

    def wanted(self, request: GenerateRequest) -> bool:
        """Whether something is to be done. Raises `InvalidRequestError` where nobody can do it."""
        if request.enhance and self._config is None:
            raise InvalidRequestError(
                "`enhance` is true, but no enhancer is configured; leave it out, or add `[enhance]`.",
                param="enhance",
            )
        if self._config is None or request.enhance is False:
            return False
        return request.enhance or (self._config.by_default and not _why_not(request))

    async def prepare(self, request: GenerateRequest, deadline: Deadline) -> Prepared:
        """The request with a fuller prompt; only of one that is `wanted`.

        Raises `DeadlineExceededError`, and `EnhanceError` unless the original prompt is to be used then.
        """
        assert self._config is not None
        if why := _why_not(request):
            return Prepared(_done(request, request.prompt), notes=(f"The prompt was not enhanced: {why}.",))
        try:
            answer, cached = await self._ask(request, deadline)
        except EnhanceError as exc:
            if self._config.on_failure == "error":
                raise
            note = f"The prompt was used as it is, as it could not be enhanced: {exc}"
            return Prepared(_done(request, request.prompt), notes=(note,))
        return Prepared(_done(request, answer), Enhancement(request.prompt, answer, cached))

    def statistics(self) -> AnswersStatistics | None:
        return self._answers.statistics() if self._config else None

    async def close(self) -> None:
        """Called when nobody waits for an answer any more."""
        opening, self._opening = self._opening, None
        if opening is None:
            return
        await asyncio.wait([opening])
        if opening.exception() is None:
            await opening.result().close()

    async def _ask(self, request: GenerateRequest, deadline: Deadline) -> tuple[str, bool]:
        assert self._config is not None
        seed = (request.seed or 0) if self._config.temperature else 0
        key: Hashable = (request.prompt, seed)
        try:
            with deadline:
                return await self._answers.get(key, lambda: self.ask(request.prompt, seed))
        except TimeoutError as exc:
            raise DeadlineExceededError(
                "The deadline passed while the prompt was being enhanced; give it a longer `deadline_s`,"
                " or set `enhance` to false."
            ) from exc

    async def ask(self, prompt: str, seed: int) -> str:
        """One new answer. Whatever an enhancer raises leaves here as an error of the house."""
        assert self._config is not None
        limit_s = self._config.limit_s
        try:
            enhancer = await self._opened(self._config)
            async with self._places, asyncio.timeout(limit_s):
                answer = await enhancer.enhance(prompt, seed)
        except TimeoutError as exc:
            raise EnhanceError(
                f"The enhancer gave no answer within {limit_s:g} s; see to it, or raise `enhance.limit_s`."
            ) from exc
        except BackendUnavailableError as exc:
            raise EnhanceError(str(exc)) from exc
        except RouterError:
            raise
        except Exception as exc:
            raise EnhanceError(f"The enhancer failed with {type(exc).__name__}; see to it.") from exc
        return _checked(answer, self._config.max_characters)

    async def _opened(self, config: EnhanceConfig) -> PromptEnhancer:
        """Opened for all who will come: who gives up meanwhile stops nothing. A failure is tried again."""
        if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
            self._opening = asyncio.create_task(self._open(config))
        return await asyncio.shield(self._opening)

    async def _open(self, config: EnhanceConfig) -> PromptEnhancer:
        enhancer = await asyncio.to_thread(lambda: self._resolve(config.kind)(config))
        await enhancer.open()
        return enhancer


def _why_not(request: GenerateRequest) -> str:
    """Why the prompt is used as it is whatever the configuration says; empty where nothing speaks against."""
    if request.exact_copy:
        return "an exact copy takes none"
    if request.task == "upscale":
        return "a picture that only becomes larger takes none"
    return "" if request.prompt.strip() else "there is none"


def _done(request: GenerateRequest, prompt: str) -> GenerateRequest:
    return request.model_copy(update={"prompt": prompt, "enhance": False})


def _checked(answer: str, most: int) -> str:
    """The answer as one line. Raises `EnhanceError` for one that is no prompt."""
    line = " ".join(answer.split())
    if not line:
        raise EnhanceError("The enhancer's answer is empty; see to its instruction or its model.")
    if len(line) > most:
        raise EnhanceError(
            f"The enhancer's answer has {len(line):,} characters, and `enhance.max_characters` is {most:,};"
            " raise it, or lower `enhance.max_tokens`."
        )
    if not line.isprintable():
        raise EnhanceError("The enhancer's answer is no text that can be a prompt; see to its model.")
    return line
