"""A web server of pictures on loopback, the internet it stands for, and what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

import httpcore2

from router import images
from tests.pictures import painted

PHOTO = images.encode(painted(64, 64))
PUBLIC = "93.184.216.34"
"""An address that is public; `Internet` leads it, like every other, to the server."""


class PictureServer:
    """`replies` are raw: path -> status line, headers and body. `asked` are the heads of what came."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []
        self.replies: dict[str, bytes] = {
            "/photo.png": reply(PHOTO),
            "/photo.png?size=large&of=%C3%BC": reply(PHOTO),
            "/page.html": reply(b"<html></html>", content_type="text/html"),
            "/announced": b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n",
            "/compressed": reply(gzip.compress(bytes(10_000_000)), content_encoding="gzip"),
            "/cut": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + PHOTO[:100],
            "/nonsense": b"\x00\x01\x02 not HTTP\r\n\r\n",
            "/circle": reply(b"", 302, location="/circle"),
        }

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    def redirect(self, path: str, to: str, status: int = 302) -> None:
        self.replies[path] = reply(b"", status, location=to)

    def hosts(self) -> list[str]:
        return [line[6:] for head in self.asked for line in head.split("\r\n") if line.startswith("Host: ")]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head)
            path = head.split(" ")[1]
            if path == "/endless":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                while not writer.is_closing():
                    writer.write(bytes(65536))
                    await writer.drain()
            elif path == "/silent":
                await reader.read()
            else:
                writer.write(self.replies.get(path, reply(b"", 404)))
                await writer.drain()


def reply(body: bytes, status: int = 200, **headers: str) -> bytes:
    fields = {"Content-Length": f"{len(body)}", "Connection": "close"}
    fields |= {name.replace("_", "-").title(): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} It", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextlib.asynccontextmanager
async def picture_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[PictureServer]:
    server = PictureServer()
    listening = await asyncio.start_server(server._answer, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


class Internet(httpcore2.AsyncNetworkBackend):
    """Leads every address to one server, and notes which were asked for."""

    def __init__(self, server: PictureServer, unreachable: Iterable[str] = ()) -> None:
        self.connected: list[tuple[str, int]] = []
        self._server = server
        self._unreachable = frozenset(unreachable)
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(  # type: ignore[override]
        self, host: str, port: int, *others: object
    ) -> httpcore2.AsyncNetworkStream:
        self.connected.append((host, port))
        if host in self._unreachable:
            raise httpcore2.ConnectError
        return await self._network.connect_tcp("127.0.0.1", self._server.port)


class Names:
    """A resolver: name -> its addresses, those of one answer after the other; the last one stays."""

    def __init__(self, names: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self.asked: list[str] = []
        self._names = {name: list(answers) for name, answers in names.items()}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self._names:
            return [host] if host[0].isdigit() or ":" in host else _unknown()
        answers = self._names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def _unknown() -> Sequence[str]:
    raise OSError("no such name")
