"""Prompt enhancement in the router: when it is done, what the result says of it, and its failures."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from router.errors import (
    DeadlineExceededError,
    EnhanceError,
    GenerateError,
    InvalidRequestError,
    NoRouteError,
)
from router.request import GenerateRequest
from tests.doubles import Double, begin, router_of, settle, until
from tests.enhancer_doubles import Loud, _forget_enhancers, loud, the_one  # noqa: F401 -- a fixture
from tests.test_request import PICTURE


async def test_the_backend_gets_the_enhanced_prompt_and_the_result_has_both() -> None:
    a = Double()
    async with router_of(a, enhance=loud()) as router:
        result = await router.generate(prompt="a red circle", enhance=True)
        assert [request.prompt for request in a.seen] == ["A RED CIRCLE"]
        assert result.request.prompt == "A RED CIRCLE"
        assert result.enhancement is not None
        assert (result.enhancement.original, result.enhancement.prompt) == ("a red circle", "A RED CIRCLE")
        assert not result.enhancement.cached
        assert result.timings.enhance_s > 0
        assert result.notes == ()
        again = await router.generate(result.request)  # it makes the same picture: nothing is enhanced twice
        assert (again.request.prompt, again.enhancement) == ("A RED CIRCLE", None)
        assert len(the_one().asked) == 1
    assert the_one().closed == 1


@pytest.mark.parametrize(
    ("by_default", "enhance", "done"),
    [(False, None, False), (False, True, True), (True, None, True), (True, False, False)],
)
async def test_the_request_decides_and_then_the_configuration(
    by_default: bool, enhance: bool | None, done: bool
) -> None:
    a = Double()
    async with router_of(a, enhance=loud(by_default=by_default)) as router:
        result = await router.generate(prompt="a", enhance=enhance)
        assert (result.enhancement is not None) is done
        assert a.seen[0].prompt == ("A" if done else "a")


async def test_it_is_refused_where_nobody_can_do_it() -> None:
    async with router_of(Double()) as router:
        with pytest.raises(
            InvalidRequestError, match=r"no enhancer is configured; .* add `\[enhance\]`"
        ) as caught:
            await router.generate(prompt="a", enhance=True)
        assert caught.value.param == "enhance"


@pytest.mark.parametrize("fields", [{"prompt": "a", "exact_copy": True}, {}])
async def test_what_has_no_use_for_it_is_passed_over(fields: dict[str, Any]) -> None:
    async with router_of(Double(), enhance=loud(by_default=True)) as router:
        result = await router.generate(image=PICTURE, **fields)
        assert (result.notes, result.enhancement, Loud.made) == ((), None, [])


async def test_who_asks_for_it_without_a_prompt_is_told() -> None:
    async with router_of(Double(), enhance=loud()) as router:
        result = await router.generate(image=PICTURE, enhance=True)
        assert result.notes == ("The prompt was not enhanced: there is none.",)
        assert Loud.made == []
    with pytest.raises(InvalidRequestError, match="`enhance` has no place beside `exact_copy`"):
        GenerateRequest.of(prompt="a", image=PICTURE, exact_copy=True, enhance=True)


async def test_what_nobody_can_serve_costs_no_answer() -> None:
    async with router_of(Double(), enhance=loud()) as router:
        with pytest.raises(NoRouteError):
            await router.generate(prompt="a", scheduler="Nonsense", enhance=True)
        assert Loud.made == []


async def test_failover_keeps_the_enhanced_prompt() -> None:
    a, b = Double("a"), Double("b")
    a.fails["generate"] = [GenerateError("on fire")]
    async with router_of(a, b, enhance=loud()) as router:
        result = await router.generate(prompt="a", enhance=True)
        assert [request.prompt for request in a.seen + b.seen] == ["A", "A"]
        assert result.instance == "b"
        assert result.enhancement is not None
        assert len(the_one().asked) == 1


async def test_a_failure_is_an_error_by_default() -> None:
    a = Double()
    async with router_of(a, enhance=loud()) as router:
        await router.generate(prompt="warm", enhance=True)
        the_one().fails = [EnhanceError("It is tired.")]
        with pytest.raises(EnhanceError, match=r"^It is tired\.$"):
            await router.generate(prompt="a", enhance=True)
        assert len(a.seen) == 1
        assert (
            await router.generate(prompt="a", enhance=True)
        ).request.prompt == "A"  # failures are not kept


@pytest.mark.parametrize("error", [EnhanceError("It is tired."), RuntimeError("a secret")])
async def test_a_failure_falls_back_where_the_configuration_says_so(error: Exception) -> None:
    a = Double()
    async with router_of(a, enhance=loud(on_failure="original")) as router:
        await router.generate(prompt="warm", enhance=True)
        the_one().fails = [error]
        result = await router.generate(prompt="a", enhance=True)
        assert a.seen[-1].prompt == result.request.prompt == "a"
        assert result.enhancement is None
        (note,) = result.notes
        assert note.startswith("The prompt was used as it is, as it could not be enhanced: ")
        assert "a secret" not in note
        assert router.statistics().enhancements.failed == 1  # type: ignore[union-attr]


async def test_one_that_does_not_open_is_opened_again() -> None:
    class Shy(Loud):
        async def open(self) -> None:
            await super().open()
            if len(Loud.made) == 1:
                raise EnhanceError("Not today.")

    async with router_of(Double(), enhance=loud()) as router:
        router._enhancements._resolve = lambda kind: Shy
        with pytest.raises(EnhanceError, match="Not today"):
            await router.generate(prompt="a", enhance=True)
        assert (await router.generate(prompt="a", enhance=True)).request.prompt == "A"


async def test_who_gives_up_while_it_is_opened_stops_it_for_nobody() -> None:
    may_open = asyncio.Event()

    class Slow(Loud):
        async def open(self) -> None:
            await super().open()
            await may_open.wait()

    async with router_of(Double(), enhance=loud()) as router:
        router._enhancements._resolve = lambda kind: Slow
        with pytest.raises(DeadlineExceededError, match="while the prompt was being enhanced"):
            await router.generate(prompt="a", enhance=True, deadline_s=0.05)
        await until(lambda: Loud.made)
        may_open.set()
        assert (await router.generate(prompt="a", enhance=True)).request.prompt == "A"
        assert (the_one().opened, the_one().cancelled) == (1, 0)
    assert the_one().closed == 1


async def test_a_library_that_is_missing_is_told_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    from router import registry

    entry = registry.BackendEntry("nowhere:Nothing", ("no_such_library",), "pip install 'triptych[enhance]'")
    monkeypatch.setitem(registry.ENHANCERS, "chat", entry)
    async with router_of(Double(), enhance=loud().model_copy(update={"kind": "chat"})) as router:
        with pytest.raises(EnhanceError, match=r"^Enhancer 'chat' needs no_such_library; pip install"):
            await router.generate(prompt="a", enhance=True)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("  \n ", "answer is empty"),
        ("x" * 51, "has 51 characters, and `enhance.max_characters` is 50"),
        ("a\x00b", "no text that can be a prompt"),
        ("a \ud800", "no text that can be a prompt"),
    ],
)
async def test_an_answer_that_is_no_prompt_is_a_failure(answer: str, says: str) -> None:
    class Odd(Loud):
        async def enhance(self, prompt: str, seed: int) -> str:
            return answer

    async with router_of(Double(), enhance=loud(max_characters=50)) as router:
        router._enhancements._resolve = lambda kind: Odd
        with pytest.raises(EnhanceError, match=says):
            await router.generate(prompt="a", enhance=True)


async def test_an_answer_becomes_one_line() -> None:
    async with router_of(Double(), enhance=loud()) as router:
        result = await router.generate(prompt=" a\n  red\tcircle ", enhance=True)
        assert result.request.prompt == "A RED CIRCLE"


async def test_the_deadline_holds_while_it_is_enhanced() -> None:
    async with router_of(Double(), enhance=loud()) as router:
        await router.generate(prompt="warm", enhance=True)
        the_one().may_answer.clear()
        with pytest.raises(DeadlineExceededError, match="while the prompt was being enhanced"):
            await router.generate(prompt="a", enhance=True, deadline_s=0.02)
        assert the_one().cancelled == 1


async def test_a_limit_of_its_own_holds_too() -> None:
    a = Double()
    async with router_of(a, enhance=loud(limit_s=0.02)) as router:
        await router.generate(prompt="warm", enhance=True)
        the_one().may_answer.clear()
        with pytest.raises(EnhanceError, match=r"no answer within 0\.02 s; .* `enhance\.limit_s`"):
            await router.generate(prompt="a", enhance=True)
        assert the_one().cancelled == 1


async def test_only_so_many_are_asked_at_once() -> None:
    async with router_of(Double(), enhance=loud(at_once=2, limit_s=60)) as router:
        await router.generate(prompt="warm", enhance=True)
        the_one().may_answer.clear()
        running = [begin(router, prompt, enhance=True) for prompt in "abc"]
        await until(lambda: len(the_one().asked) == 3)
        await settle()
        assert [prompt for prompt, _ in the_one().asked] == ["warm", "a", "b"]
        the_one().may_answer.set()
        results = await asyncio.gather(*running)
        assert [result.request.prompt for result in results] == ["A", "B", "C"]


async def test_cancel_stops_it_and_ends_when_it_has_ended() -> None:
    async with router_of(Double(), enhance=loud()) as router:
        await router.generate(prompt="warm", enhance=True)
        the_one().may_answer.clear()
        running = begin(router, enhance=True)
        await until(lambda: len(the_one().asked) == 2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert the_one().cancelled == 1
        assert router.statistics().cancelled == 1


async def test_the_shape_of_the_effective_request_is_said_in_it() -> None:
    """Stored and sent again, it is not enhanced again, whatever is configured by then."""
    async with router_of(Double(), enhance=loud(by_default=True)) as router:
        result = await router.generate(prompt="a")
        stored = GenerateRequest.model_validate_json(result.request.model_dump_json())
        assert (stored.prompt, stored.enhance) == ("A", False)
        await settle()
