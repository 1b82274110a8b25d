"""Bodies: read within limits of bytes and time, and JSON as strictly as RFC 8259 and I-JSON have it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import Any

from fastapi import Request

from router.deadline import Deadline
from router.errors import InvalidRequestError, RequestCancelledError
from router.server.errors import TooLargeError, UnsupportedMediaTypeError
from router.server.front import front_of

_MAX_DIGITS = 40
_HUGE: int = 10**_MAX_DIGITS
_ESCAPED = re.compile("[\ud800-\udfff]")


async def read_json(request: Request) -> dict[str, Any]:
    """The body's one object. Raises `InvalidRequestError` for whatever else it is."""
    if media_type(request) != "application/json":
        raise UnsupportedMediaTypeError(
            "The body must be JSON, and say so: `Content-Type: application/json`.", param="Content-Type"
        )
    return parse_object(await read_body(request))


async def read_body(request: Request) -> bytes:
    """All of the body. Raises `TooLargeError` as soon as it is too large, or says that it will be."""
    settings = front_of(request).settings
    limit, announced = settings.max_body_bytes, request.headers.get("content-length", "0")
    if not announced.isdigit() or len(announced) > _MAX_DIGITS or int(announced) > limit:
        raise _too_large(limit)
    task = asyncio.current_task()
    assert task is not None
    try:
        with Deadline(task, settings.body_s):
            return await _received(request, limit)
    except TimeoutError as exc:
        raise InvalidRequestError(
            f"The `body` did not come within {settings.body_s:g} s.", param="body"
        ) from exc


async def _received(request: Request, limit: int) -> bytes:
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise RequestCancelledError("The client went away before its request was complete.")
        chunks.append(message.get("body", b""))
        size, more = size + len(chunks[-1]), message.get("more_body", False)
        if size > limit:
            raise _too_large(limit)
    return b"".join(chunks)


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object as a dict. Raises `InvalidRequestError` for whatever else it is."""
    value = parse_json(data)
    if not isinstance(value, dict):
        raise InvalidRequestError(
            'The `body` must be a JSON object, such as {"prompt": "a red circle"}.', param="body"
        )
    return value


def parse_json(data: bytes) -> Any:
    """Any JSON value. Raises `InvalidRequestError`, with the field's name for a duplicate.

    NaN, infinities and numbers of many digits are left to the field that holds them, so that the
    error names it.
    """
    try:
        return _JSON.decode(data.decode("utf-8"))
    except UnicodeDecodeError as exc:
        param = _not_utf8(data)
        raise InvalidRequestError(
            f"`{param}` is not UTF-8 (byte {exc.start} of the request); send UTF-8.", param=param
        ) from exc
    except json.JSONDecodeError as exc:
        where = f"line {exc.lineno}, column {exc.colno}"
        raise InvalidRequestError(
            f"The `body` is not JSON at {where}; correct that place.", param="body"
        ) from exc
    except RecursionError as exc:
        raise InvalidRequestError(
            "The `body` is nested too deeply; no field needs that.", param="body"
        ) from exc


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)[:_MAX_DIGITS]
        raise InvalidRequestError(f"`{twice}` stands twice in the body; send it once.", param=twice)
    return found


def _not_utf8(data: bytes) -> str:
    """The field whose value is not, or `body` where that cannot be told."""
    with contextlib.suppress(ValueError, RecursionError, InvalidRequestError):
        fields = _JSON.decode(data.decode("utf-8", "surrogateescape"))
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if _ESCAPED.search(json.dumps(value, ensure_ascii=False)) and not _ESCAPED.search(name):
                return str(name)[:_MAX_DIGITS]
    return "body"


def _integer(digits: str) -> int:
    """Python refuses to read numbers of thousands of digits; no field takes one."""
    if len(digits) > _MAX_DIGITS:
        return -_HUGE if digits.startswith("-") else _HUGE
    return int(digits)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"The `body` may have {limit:,} bytes at most; send smaller pictures.", param="body")


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer)
