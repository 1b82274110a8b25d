"""Forms: multipart bodies, read whole and strictly, in a thread."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from router.errors import InvalidRequestError
from router.server.body import media_type, read_body
from router.server.errors import UnsupportedMediaTypeError

_MAX_PARTS = 64
_MAX_TEXT_BYTES = 64 * 1024
_MAX_NAME_CHARACTERS = 40
_BROKEN = "The form in `body` is broken or cut off; send it again as multipart/form-data."


@dataclass(slots=True)
class Part:
    """One field of a form. `file` is whether it came with a file name."""

    name: str
    file: bool
    data: bytes


async def read_form(request: Request) -> list[Part]:
    """The parts of the body, in order. Raises `InvalidRequestError` for what is no complete form."""
    if media_type(request) != "multipart/form-data":
        raise UnsupportedMediaTypeError(
            "The body must be a form, and say so: `Content-Type: multipart/form-data`.", param="Content-Type"
        )
    _, options = parse_options_header(request.headers["content-type"])
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise InvalidRequestError(
            "The Content-Type names no boundary; a form needs one.", param="Content-Type"
        )
    data = await read_body(request)
    return await asyncio.to_thread(_parse, data, boundary)


def text_of(part: Part) -> str:
    """A field's text. Raises `InvalidRequestError` for a file, or for what is not UTF-8."""
    name = part.name[:_MAX_NAME_CHARACTERS]
    if part.file:
        raise InvalidRequestError(f"`{name}` is a file, but must be text.", param=name)
    if len(part.data) > _MAX_TEXT_BYTES:
        raise InvalidRequestError(f"`{name}` has more than {_MAX_TEXT_BYTES:,} bytes.", param=name)
    try:
        return part.data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidRequestError(f"`{name}` is not UTF-8 at byte {exc.start}.", param=name) from exc


def _parse(data: bytes, boundary: bytes) -> list[Part]:
    reader = _Reader()
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        parser.write(data)
        parser.finalize()
    except FormParserError as exc:
        raise InvalidRequestError(_BROKEN, param="body") from exc
    if not reader.complete:
        raise InvalidRequestError(_BROKEN, param="body")
    return reader.parts


@dataclass(slots=True)
class _Reader:
    """What the parser calls: collects the parts, and sees whether the last boundary came."""

    parts: list[Part] = field(default_factory=list)
    complete: bool = False
    _disposition: bytes = b""
    _header: bytes = b""
    _value: bytes = b""
    _chunks: list[bytes] = field(default_factory=list)

    def callbacks(self) -> Any:
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end", "end")
        return {f"on_{name}": getattr(self, name) for name in names}

    def part_begin(self) -> None:
        if len(self.parts) >= _MAX_PARTS:
            raise InvalidRequestError(
                f"The form in `body` has more than {_MAX_PARTS} fields; no request needs that.", param="body"
            )
        self._disposition, self._chunks = b"", []

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._chunks.append(data[start:end])

    def part_end(self) -> None:
        kind, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or not name:
            raise InvalidRequestError(
                "A field of the form in `body` has no name; give each one.", param="body"
            )
        self.parts.append(Part(name, b"filename" in options, b"".join(self._chunks)))

    def end(self) -> None:
        self.complete = True
