"""The chat enhancer against a real server: what it sends, what it makes of replies, where the key goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backends.enhance_chat import MAX_REPLY_BYTES, ChatEnhancer
from router.enhancer import INSTRUCTION, EnhanceConfig
from router.errors import ConfigError, EnhanceError
from router.registry import resolve_enhancer
from tests.chat_servers import ChatServer, as_json, chat_server, completion
from tests.doubles import Double, router_of
from tests.picture_servers import reply

KEY = "sk-a-secret-of-the-tests"
VARIABLE = "TESTS_CHAT_KEY"


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with chat_server() as server:
        yield server


def config_for(server: ChatServer, **settings: Any) -> EnhanceConfig:
    return EnhanceConfig(**{"kind": "chat", "source": server.url, "model": "tiny"} | settings)


@contextlib.asynccontextmanager
async def enhancer_for(server: ChatServer, **settings: Any) -> AsyncIterator[ChatEnhancer]:
    enhancer = await asyncio.to_thread(ChatEnhancer, config_for(server, **settings))
    await enhancer.open()
    try:
        yield enhancer
    finally:
        await enhancer.close()


async def test_the_prompt_goes_out_as_a_chat_and_the_answer_comes_back(server: ChatServer) -> None:
    assert resolve_enhancer("chat") is ChatEnhancer  # type: ignore[comparison-overlap]
    async with enhancer_for(server, max_tokens=50) as enhancer:
        assert await enhancer.enhance("a red circle", 7) == "a red circle, at dawn"
    assert server.heads[0].startswith("POST /v1/chat/completions HTTP/1.1")
    assert "authorization" not in server.heads[0].lower()
    assert server.bodies[0] == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": INSTRUCTION},
            {"role": "user", "content": "a red circle"},
        ],
        "temperature": 0.0,
        "max_tokens": 50,
    }


async def test_drawn_words_are_asked_for_with_the_seed(server: ChatServer) -> None:
    async with enhancer_for(server, temperature=0.5) as enhancer:
        await enhancer.enhance("a", 7)
    assert (server.bodies[0]["temperature"], server.bodies[0]["seed"]) == (0.5, 7)


async def test_the_key_comes_from_the_named_variable_and_is_told_to_nobody_else(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, f"{KEY}\n")
    caplog.set_level(logging.DEBUG)
    server.replies = [reply(f"no such key {KEY}".encode(), 401)]
    async with enhancer_for(server, key_variable=VARIABLE) as enhancer:
        with pytest.raises(EnhanceError, match=f"status 401; put a good key into {VARIABLE}") as caught:
            await enhancer.enhance("a", 0)
    assert f"Bearer {KEY}" in server.heads[0]
    assert (
        KEY
        not in f"{caught.value!r} {caplog.text} {enhancer!r} {config_for(server, key_variable=VARIABLE)!r}"
    )


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (reply(b"", 401), "status 401; name a key by `enhance.key_variable`"),
        (reply(b"", 404), "status 404; correct `enhance.source` or `enhance.model`"),
        (reply(b"", 429), "status 429; come again later"),
        (reply(b"a stack trace", 500), "^The enhancer's service answered with status 500; see to it.$"),
        (reply(b"", 302, location="http://127.0.0.1:9/steal"), "status 302"),
        (reply(b"<html></html>"), "sent no chat completion"),
        (as_json([]), "sent no chat completion"),
        (as_json({"choices": []}), "sent no chat completion"),
        (as_json({"choices": [{"message": "hello"}]}), "sent no chat completion"),
        (completion(["a", "list"]), "sent no chat completion"),
        (reply(b"[" * 100_000), "sent no chat completion"),
        (completion("a red", "length"), "cut off at its end; raise `enhance.max_tokens`"),
        (reply(b" " * (MAX_REPLY_BYTES + 1)), "sent more than 1,000,000 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{", "cannot be reached, or broke off"),
        (b"\x00\x01 not HTTP\r\n\r\n", "cannot be reached, or broke off"),
        (b"", "cannot be reached, or broke off"),
    ],
)
async def test_a_reply_that_is_no_answer_is_a_failure(server: ChatServer, raw: bytes, says: str) -> None:
    server.replies = [raw]
    async with enhancer_for(server) as enhancer:
        with pytest.raises(EnhanceError, match=says):
            await enhancer.enhance("a", 0)
        assert await enhancer.enhance("a", 0) == "a, at dawn"  # the next is served


async def test_a_server_that_is_not_there_is_a_failure(server: ChatServer) -> None:
    async with enhancer_for(server, source="http://127.0.0.1:9/v1") as enhancer:
        with pytest.raises(EnhanceError, match=r"cannot be reached, or broke off \(ConnectError\)"):
            await enhancer.enhance("a", 0)


async def test_one_that_hangs_is_left_when_its_time_is_over(server: ChatServer) -> None:
    server.hangs = True
    async with router_of(Double(), enhance=config_for(server, limit_s=0.1)) as router:
        with pytest.raises(EnhanceError, match=r"no answer within 0\.1 s"):
            await router.generate(prompt="a", enhance=True)
        async with asyncio.timeout(10):
            await server.left.wait()


async def test_empty_and_too_long_answers_are_failures_that_may_fall_back(server: ChatServer) -> None:
    server.replies = [completion(None), completion(" "), completion("x" * 101)]
    config = config_for(server, on_failure="original", max_characters=100)
    async with router_of(Double(), enhance=config) as router:
        for says in ("is empty", "is empty", "has 101 characters"):
            result = await router.generate(prompt="a", enhance=True)
            assert result.request.prompt == "a"
            assert says in result.notes[0]
        assert (await router.generate(prompt="a", enhance=True)).request.prompt == "a, at dawn"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"source": "localhost:8080"}, "`enhance.source` must be the http or https address"),
        ({"source": "file:///etc/passwd"}, "`enhance.source` must be the http or https address"),
        ({"source": "http://me:secret@host/v1"}, "holds a user name or a password"),
        ({"model": ""}, "`enhance.model` is missing"),
        ({"key_variable": VARIABLE}, f"names {VARIABLE}, which holds no key; set it"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, str], says: str) -> None:
    config = EnhanceConfig(**{"kind": "chat", "source": "http://127.0.0.1/v1", "model": "tiny"} | settings)
    with pytest.raises(ConfigError, match=says) as caught:
        ChatEnhancer(config)
    assert "secret" not in str(caught.value)
