"""Answers that are kept: equal prompts cost one answer, and nobody waits for nothing."""

from __future__ import annotations

import asyncio

import pytest

from router.answers import Answers
from tests.doubles import Double, begin, router_of, settle, until
from tests.enhancer_doubles import _forget_enhancers, loud, the_one  # noqa: F401 -- a fixture


async def test_equal_prompts_cost_one_answer() -> None:
    async with router_of(Double(), enhance=loud()) as router:
        first = await router.generate(prompt="a", enhance=True, seed=1)
        second = await router.generate(prompt="a", enhance=True, seed=2)
        assert first.enhancement is not None
        assert second.enhancement is not None
        assert (first.enhancement.cached, second.enhancement.cached) == (False, True)
        assert the_one().asked == [("a", 0)]
        found = router.statistics().enhancements
        assert found is not None
        assert (found.made, found.hits, found.joined, found.failed, found.kept) == (1, 1, 0, 0, 1)


async def test_drawn_words_go_by_the_seed_of_the_request() -> None:
    async with router_of(Double(), enhance=loud(temperature=0.7)) as router:
        for seed in (1, 2, 1, None, None):
            await router.generate(prompt="a", enhance=True, seed=seed)
        assert the_one().asked == [("a", 1), ("a", 2), ("a", 0)]


async def test_requests_at_the_same_time_share_one_answer() -> None:
    async with router_of(Double(), enhance=loud()) as router:
        await router.generate(prompt="warm", enhance=True)
        the_one().may_answer.clear()
        running = [begin(router, enhance=True) for _ in range(3)]
        await until(lambda: len(the_one().asked) == 2)
        the_one().may_answer.set()
        results = await asyncio.gather(*running)
        assert [result.request.prompt for result in results] == ["A"] * 3
        assert len(the_one().asked) == 2
        found = router.statistics().enhancements
        assert found is not None
        assert (found.made, found.joined) == (2, 2)


async def test_who_leaves_takes_the_answer_from_nobody() -> None:
    async with router_of(Double(), enhance=loud()) as router:
        await router.generate(prompt="warm", enhance=True)
        the_one().may_answer.clear()
        leaving, staying = begin(router, enhance=True), begin(router, enhance=True)
        await until(lambda: len(the_one().asked) == 2)
        await settle()
        leaving.cancel()
        await settle()
        assert the_one().cancelled == 0
        the_one().may_answer.set()
        assert (await staying).request.prompt == "A"
        assert leaving.cancelled()


async def test_who_comes_while_one_is_stopped_starts_anew() -> None:
    answers, may_end = Answers(4), asyncio.Event()
    made: list[str] = []

    async def make() -> str:
        made.append("a")
        try:
            await asyncio.sleep(60 if len(made) == 1 else 0)
        except asyncio.CancelledError:
            await may_end.wait()
            raise
        return "A"

    first = asyncio.create_task(answers.get("a", make))
    await settle()
    first.cancel()
    await settle()
    assert not first.done()  # the work has not ended yet
    assert await answers.get("a", make) == ("A", False)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await answers.get("a", make) == ("A", True)


async def test_the_least_recently_used_goes_first() -> None:
    answers = Answers(2)
    made: list[str] = []

    async def ask(key: str) -> None:
        async def make() -> str:
            made.append(key)
            return key

        await answers.get(key, make)

    for key in "abacab":
        await ask(key)
    assert made == ["a", "b", "c", "b"]
    assert answers.statistics().kept == 2


async def test_nothing_is_kept_where_nothing_may_be() -> None:
    async with router_of(Double(), enhance=loud(cache=0)) as router:
        for _ in range(2):
            await router.generate(prompt="a", enhance=True)
        assert len(the_one().asked) == 2


async def test_an_error_reaches_all_who_wait_and_is_not_kept() -> None:
    answers = Answers(2)
    fails = [OSError("once")]

    async def make() -> str:
        await asyncio.sleep(0)
        if fails:
            raise fails.pop()
        return "A"

    outcomes = await asyncio.gather(*(answers.get("a", make) for _ in range(2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OSError, OSError]
    assert await answers.get("a", make) == ("A", False)
    assert answers.statistics().failed == 1
