"""ChatEnhancer: prompts enhanced by any service that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any
from urllib.parse import urlsplit

import httpx2

from router.enhancer import EnhanceConfig
from router.errors import ConfigError, EnhanceError

MAX_REPLY_BYTES = 1_000_000
"""Of one reply. An answer has some hundred; what some services send around it has thousands."""

_CONNECT_S = 10.0


class ChatEnhancer:
    """Asks `source`/chat/completions. No redirect is followed, and no proxy of the environment used.

    The key is read from the environment variable that the configuration names, and goes nowhere else.
    """

    def __init__(self, config: EnhanceConfig) -> None:
        self._config = config
        self._url = _address(config)
        self._key = _key(config.key_variable)
        self._client: httpx2.AsyncClient | None = None

    async def open(self) -> None:
        """Nothing is asked yet; the certificates are read in a thread."""
        self._client = await asyncio.to_thread(
            httpx2.AsyncClient, timeout=httpx2.Timeout(None, connect=_CONNECT_S), trust_env=False
        )

    async def enhance(self, prompt: str, seed: int) -> str:
        assert self._client is not None
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            async with self._client.stream(
                "POST", self._url, json=self._body(prompt, seed), headers=headers
            ) as reply:
                self._check(reply.status_code)
                return _answer_in(await _read(reply))
        except (httpx2.TransportError, httpx2.DecodingError) as exc:
            raise EnhanceError(
                f"The enhancer's service cannot be reached, or broke off ({type(exc).__name__}); see to it."
            ) from exc

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _body(self, prompt: str, seed: int) -> dict[str, Any]:
        """A seed goes along only where words are drawn: some services refuse the field."""
        config = self._config
        drawn = {"seed": seed} if config.temperature else {}
        return drawn | {
            "model": config.model,
            "messages": [
                {"role": "system", "content": config.instruction},
                {"role": "user", "content": prompt},
            ],
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
        }

    def _check(self, status: int) -> None:
        if status == 200:
            return
        cure = "see to it"
        if status in (401, 403):
            variable = self._config.key_variable
            cure = f"put a good key into {variable}" if variable else "name a key by `enhance.key_variable`"
        elif status == 404:
            cure = "correct `enhance.source` or `enhance.model`"
        elif status == 429:
            cure = "come again later"
        raise EnhanceError(f"The enhancer's service answered with status {status}; {cure}.")


def _address(config: EnhanceConfig) -> str:
    parts = urlsplit(config.source)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            "`enhance.source` must be the http or https address of a chat service, up to and with its `/v1`."
        )
    if parts.username or parts.password:
        raise ConfigError(
            "`enhance.source` holds a user name or a password; leave them out, and name a variable by"
            " `enhance.key_variable`."
        )
    if not config.model:
        raise ConfigError("`enhance.model` is missing; name the model as the chat service calls it.")
    return f"{config.source.rstrip('/')}/chat/completions"


def _key(variable: str) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigError(f"`enhance.key_variable` names {variable}, which holds no key; set it.")
    return key


async def _read(reply: httpx2.Response) -> bytes:
    """All of the body, but no byte beyond what is allowed."""
    data = bytearray()
    async for chunk in reply.aiter_bytes():
        data += chunk
        if len(data) > MAX_REPLY_BYTES:
            raise EnhanceError(f"The enhancer's service sent more than {MAX_REPLY_BYTES:,} bytes; see to it.")
    return bytes(data)


def _answer_in(data: bytes) -> str:
    try:
        choice = json.loads(data)["choices"][0]
        answer, reason = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise _unreadable() from exc
    if reason == "length":
        raise EnhanceError("The enhancer's answer was cut off at its end; raise `enhance.max_tokens`.")
    if answer is None:
        return ""
    if not isinstance(answer, str):
        raise _unreadable()
    return answer


def _unreadable() -> EnhanceError:
    return EnhanceError("The enhancer's service sent no chat completion; check `enhance.source`.")
