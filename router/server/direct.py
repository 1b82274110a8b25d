"""Direct: the short way to most addresses. FastAPI's takes a fifth of a small request's time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_type_hints

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from router.errors import RouterError
from router.server.errors import reply_to

_PLAIN = {"request": Request, "return": Response}


class Direct:
    """Plain ASGI: a function that takes the request and returns the reply needs nothing of FastAPI.

    Addresses with parameters, those that do not exist, and the OpenAPI document are FastAPI's.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        plain = [route for route in routes if isinstance(route, APIRoute) and _is_plain(route)]
        self._routes = {(method, route.path): route for route in plain for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive, send)
        try:
            response = await route.endpoint(request)
        except RouterError as exc:
            response = reply_to(request, exc)
        await response(scope, receive, send)


def _is_plain(route: APIRoute) -> bool:
    return "{" not in route.path and get_type_hints(route.endpoint) == _PLAIN
