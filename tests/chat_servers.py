"""A real web server that speaks chat completions, or fails to, and what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from tests.picture_servers import reply


class ChatServer:
    """Answers each request with the next of `replies`, raw; else with the prompt in a fuller form.

    `heads` and `bodies` are what came.
    """

    def __init__(self) -> None:
        self.port = 0
        self.heads: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.replies: list[bytes] = []
        self.hangs = False
        self.left = asyncio.Event()
        """Set when a client has left that was kept waiting."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(line for line in head.lower().split("\r\n") if line.startswith("content-length"))
            body = json.loads(await reader.readexactly(int(length.partition(":")[2])))
            self.heads.append(head)
            self.bodies.append(body)
            if self.hangs:
                await reader.read()
                self.left.set()
                return
            prompt = body["messages"][-1]["content"]
            writer.write(self.replies.pop(0) if self.replies else completion(f"{prompt}, at dawn"))
            await writer.drain()


def completion(content: object, finish_reason: str = "stop") -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": finish_reason,
    }
    return as_json({"object": "chat.completion", "choices": [choice]})


def as_json(document: object) -> bytes:
    return reply(json.dumps(document).encode(), content_type="application/json")


@contextlib.asynccontextmanager
async def chat_server() -> AsyncIterator[ChatServer]:
    server = ChatServer()
    listening = await asyncio.start_server(server._answer, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
