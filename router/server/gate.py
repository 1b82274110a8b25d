"""Gate: the outermost layer. Request id, who may ask, security headers, one log line, the counts."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.errors import RouterError
from router.recorder import TAKE_RECORD
from router.request_id import REQUEST_ID, new_request_id
from router.server.access import LINK, is_open, takes_links
from router.server.errors import StartingError, UnauthorizedError, reply
from router.server.exchange import Exchange
from router.server.front import Front

log = logging.getLogger("router.server")

ID_HEADER = "X-Request-ID"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UNKNOWN_ROUTE = "unknown"
_METRICS = "/metrics"
_READS = frozenset({"GET", "HEAD"})
_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)


class Gate:
    """Plain ASGI: nothing of a request is read here but its head."""

    def __init__(self, app: ASGIApp, front: Front) -> None:
        self._app = app
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        scope["front"] = self._front
        exchange = scope["exchange"] = Exchange(_request_id(headers))
        REQUEST_ID.set(exchange.id)
        TAKE_RECORD.set(exchange.take)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()), (b"x-request-id", exchange.id.encode()), *_SECURITY
                ]  # fmt: skip
            await send(message)

        try:
            self._admit(scope, headers, exchange)
        except RouterError as exc:
            exchange.code = exc.code
            await reply(exc)(scope, receive, send_with_id)
            self._note(scope, exchange)
            return
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            self._note(scope, exchange)

    def _admit(self, scope: Scope, headers: Mapping[str, str], exchange: Exchange) -> None:
        """Raise what `Access` has against the request; a signed link stands in for a key.

        While the service starts it answers for itself and shows its page, and no more.
        """
        access, method, path = self._front.access, scope["method"], scope["path"]
        access.check_source(method, headers)
        try:
            exchange.key = access.identify(path, headers)
        except UnauthorizedError:
            if not (method in _READS and takes_links(path) and self._has_link(path, scope["query_string"])):
                raise
            exchange.key = LINK
        if not (self._front.ready or is_open(path) or path == _METRICS):
            raise StartingError("The service is starting; models are probed and loaded. Come again soon.")

    def _has_link(self, path: str, query: bytes) -> bool:
        return self._front.links.holds(path, dict(parse_qsl(query.decode("latin-1"))))

    def _note(self, scope: Scope, exchange: Exchange) -> None:
        route = getattr(scope.get("route"), "path", _UNKNOWN_ROUTE)
        if not exchange.status:  # an exception passes through, and becomes a reply further out
            exchange.status, exchange.code = RouterError.status, RouterError.code
        status, seconds = exchange.status, time.perf_counter() - exchange.started
        self._front.metrics.answered(route, status, exchange.code, seconds)
        method = scope["method"] if route != _UNKNOWN_ROUTE else ""
        log.info("answered", extra=exchange.line(method, route, seconds))


def _request_id(headers: Mapping[str, str]) -> str:
    """The client's own where it is short and plain, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _ID.fullmatch(given) else new_request_id()
