"""The one place where an error becomes an HTTP reply: status, body of OpenAI's shape, headers.

    {"error": {"message": "...", "type": "invalid_request_error", "param": "height", "code": "..."}}

The errors of this floor are here too. None carries a stack trace, a path or a prompt.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match

from router.errors import (
    BackendError,
    ConfigError,
    InvalidRequestError,
    NoRouteError,
    OverloadedError,
    RouterError,
)
from router.server.exchange import exchange_of

log = logging.getLogger("router.server")

UNKNOWN_RETRY_S = 1.0
"""What `Retry-After` says where nothing was measured yet."""
_FIELD = re.compile(r"`([a-z_]+)`")
_DETAILS = ("rejections", "models", "instance")
_HIDDEN = "Something failed that should not; the log of the server has it under this request's id."
_MISCONFIGURED = "The service is not configured right for this; its operator finds the sentence in the log."
_SAID = {
    404: "There is nothing at this address; GET /openapi.json lists what there is.",
    405: "This address does not take that method; the header Allow names those that it takes.",
}


class UnauthorizedError(RouterError):
    """No API key, or none that is known."""

    status = 401
    code = "invalid_api_key"


class ForbiddenError(RouterError):
    """The request comes from where none may come from: a foreign page, an unknown host name."""

    status = 403
    code = "forbidden"


class NotFoundError(RouterError):
    """No such output or job: never made, or removed since."""

    status = 404
    code = "not_found"


class TooLargeError(InvalidRequestError):
    """The body passes its limit; it was not read to its end."""

    status = 413
    code = "too_large"


class UnsupportedMediaTypeError(InvalidRequestError):
    """The body is of another kind than the address takes."""

    status = 415
    code = "unsupported_media_type"


class RateLimitError(OverloadedError):
    """The key asked for more than its share."""

    status = 429
    code = "rate_limit_exceeded"


class StartingError(OverloadedError):
    """The service begins; it takes requests when its models are loaded."""

    code = "starting"


class ClosingError(OverloadedError):
    """The service ends; another one, or the next, takes the request."""

    code = "shutting_down"


def install(app: FastAPI) -> None:
    """Every error leaves through here; nothing is left to the frameworks' own replies."""
    app.add_exception_handler(RouterError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_mistake)


def body_of(exc: RouterError) -> dict[str, Any]:
    """The error as OpenAI's clients read it; what else it carries stands in `details`."""
    error: dict[str, Any] = {
        "message": _sendable(_sentence(exc)),
        "type": _type(exc),
        "param": _sendable(_param(exc)) or None,
        "code": exc.code,
    }
    details = {name: value for name in _DETAILS if (value := getattr(exc, name, None))}
    return {"error": error | ({"details": details} if details else {})}


def headers_of(exc: RouterError) -> dict[str, str]:
    """`Retry-After` in whole seconds, and what else HTTP wants beside the status."""
    if isinstance(exc, UnauthorizedError):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(exc, OverloadedError):
        return {"Retry-After": f"{math.ceil(exc.retry_after_s or UNKNOWN_RETRY_S)}"}
    return {"Retry-After": f"{math.ceil(UNKNOWN_RETRY_S)}"} if exc.status == 503 else {}


def reply(exc: RouterError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The error as a reply. What the caller must not read goes to the log instead."""
    if exc.status == 500:
        log.error("%s: %s", type(exc).__name__, exc, extra={"code": exc.code})
    return JSONResponse(body_of(exc), exc.status, {**headers_of(exc), **(headers or {})})


def reply_to(request: Request, exc: RouterError) -> JSONResponse:
    """The same, noted in the request's exchange."""
    exchange_of(request).code = exc.code
    return reply(exc)


def _sentence(exc: RouterError) -> str:
    return _MISCONFIGURED if isinstance(exc, ConfigError) else str(exc)


def _sendable(text: str) -> str:
    """A field's name may hold lone surrogates, which UTF-8 does not."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _param(exc: RouterError) -> str:
    """The field to change; where nobody serves a request, the one that all instances name first."""
    if not isinstance(exc, NoRouteError):
        return getattr(exc, "param", None) or ""
    first = {found[1] if (found := _FIELD.search(said)) else "" for said in exc.rejections.values()}
    return first.pop() if len(first) == 1 else ""


def _type(exc: RouterError) -> str:
    """OpenAI's rough kinds; `code` is the exact one."""
    if isinstance(exc, OverloadedError):
        return "overloaded_error" if exc.status == 503 else "rate_limit_error"
    if exc.status in (401, 403):
        return "authentication_error" if exc.status == 401 else "permission_error"
    if isinstance(exc, BackendError) or exc.status >= 500:
        return "server_error"
    return "invalid_request_error"


async def _on_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RouterError)
    return reply_to(request, exc)


async def _on_http_error(request: Request, exc: Exception) -> JSONResponse:
    """What Starlette says by itself: no such path, no such method."""
    assert isinstance(exc, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(exc.status_code, "invalid_request_error")
    said = _SAID.get(exc.status_code, "The request cannot be read; correct it.")
    error = {"message": said, "type": "invalid_request_error", "param": None, "code": code}
    exchange_of(request).code = code
    headers = {"Allow": _allowed(request)} if exc.status_code == 405 else exc.headers
    return JSONResponse({"error": error}, exc.status_code, headers)


def _allowed(request: Request) -> str:
    """Of every route with this path; Starlette names the methods of the first one alone."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    methods = {method for route in routes for method in route.methods}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


async def _on_mistake(request: Request, exc: Exception) -> JSONResponse:
    """A mistake of ours: Starlette raises it again, and its trace goes to the log and to nobody else.

    uvicorn then closes the connection. The gate is not around this reply, so the id is set here.
    """
    id = exchange_of(request).id
    log.error("a mistake of ours", extra={"request_id": id, "error": type(exc).__name__})
    headers = {"X-Request-ID": id, "Connection": "close"}
    return JSONResponse(body_of(RouterError(_HIDDEN)), 500, headers)
