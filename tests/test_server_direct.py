"""Direct: who is answered past FastAPI, and that nobody else is."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from router.errors import InvalidRequestError
from router.server.direct import Direct
from router.server.exchange import Exchange

routes = APIRouter()


@routes.post("/plain")
async def plain(request: Request) -> Response:
    return JSONResponse(await request.json())


@routes.post("/refused")
async def refused(request: Request) -> Response:
    raise InvalidRequestError("`size` is wrong; correct it.", param="size")


@routes.get("/things/{name}")
async def named(request: Request, name: str) -> Response:
    return Response(name)


@routes.get("/counted")
async def counted(request: Request, count: int) -> Response:
    return Response(f"{count}")


@routes.get("/value")
async def value(request: Request) -> dict[str, Any]:
    return {}


class Asked:
    """The gate outside, and FastAPI inside, which answers 418 to whatever reaches it."""

    def __init__(self) -> None:
        self.exchange = Exchange("id")
        self.route: Any = None
        self._direct = Direct(Response(status_code=418), routes.routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["exchange"] = self.exchange
        await self._direct(scope, receive, send)
        self.route = scope.get("route")


async def ask(asked: Asked, method: str, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(asked)
    async with httpx.AsyncClient(transport=transport, base_url="http://triptych") as http:
        return await http.request(method, path, json={"a": 1})


async def test_a_function_of_the_request_is_called_directly() -> None:
    asked = Asked()
    answer = await ask(asked, "POST", "/plain?b=2")
    assert (answer.status_code, answer.json()) == (200, {"a": 1})
    assert asked.route.path == "/plain"


async def test_its_error_is_the_reply_of_every_error() -> None:
    asked = Asked()
    answer = await ask(asked, "POST", "/refused")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "size")
    assert asked.exchange.code == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/plain"),
        ("POST", "/plain/"),
        ("GET", "/nothing"),
        ("GET", "/things/one"),
        ("GET", "/things/{name}"),
        ("GET", "/counted?count=1"),
        ("GET", "/value"),
    ],
)
async def test_everything_else_is_fastapis(method: str, path: str) -> None:
    assert (await ask(Asked(), method, path)).status_code == 418
