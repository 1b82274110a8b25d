"""The web page at `/`: the files of `page/`, read once, so that no path from a request touches the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import Response

from router.server.errors import NotFoundError

routes = APIRouter(include_in_schema=False)

_MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",
    "connect-src": "'self'",
    "form-action": "'none'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}


@dataclass(frozen=True, slots=True)
class File:
    """One file of the page, as it is sent."""

    data: bytes
    headers: Mapping[str, str]


def _read() -> dict[str, File]:
    folder = files("router.server") / "page"
    return {file.name: _file(file.name, file.read_bytes()) for file in folder.iterdir()}


def _file(name: str, data: bytes) -> File:
    """It may be kept by the browser, which asks each time whether it is still the same."""
    headers = {
        "Content-Type": _MEDIA_TYPES[name.rpartition(".")[2]],
        "Content-Security-Policy": "; ".join(f"{what} {whence}" for what, whence in _POLICY.items()),
        "Cache-Control": "no-cache",
        "ETag": f'"{hashlib.sha256(data).hexdigest()[:32]}"',
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    return File(data, headers)


_FILES = _read()


@routes.get("/")
async def page(request: Request) -> Response:
    return _reply(request, "index.html")


@routes.get("/page/{name}")
async def page_file(request: Request, name: str) -> Response:
    return _reply(request, name)


def _reply(request: Request, name: str) -> Response:
    file = _FILES.get(name)
    if file is None:
        raise NotFoundError("There is no such file of the page.")
    if request.headers.get("if-none-match") == file.headers["ETag"]:
        return Response(status_code=304, headers=file.headers)
    return Response(file.data, headers=file.headers)
