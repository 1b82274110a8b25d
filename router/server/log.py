"""The service's log: one line an event on stderr, as JSON or as text. It holds no prompt and no key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from functools import lru_cache
from typing import Any, TextIO

_MOST_LINES = 64
_FLUSH_S = 0.25
_JSON = json.JSONEncoder(default=str)
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """`{"time": ..., "level": ..., "logger": ..., "message": ..., and what came as extra}`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return _JSON.encode(line)


class TextFormatter(logging.Formatter):
    """The same for people: `12:00:00 info answered status=200 ...`."""

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(
            f" {name}={value}" for name, value in _extra(record).items() if value not in ("", None)
        )
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{at} {record.levelname.lower()} {record.getMessage()}{facts}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class BatchHandler(logging.Handler):
    """Writes many lines at once, as one write costs as much as making the line.

    A warning is written at once with all before it; else `flush` decides how late a line may be.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))
        if record.levelno >= logging.WARNING or len(self._lines) >= _MOST_LINES:
            self.flush()

    def flush(self) -> None:
        with self.lock or contextlib.nullcontext():
            lines, self._lines = self._lines, []
            if not lines:
                return
            with contextlib.suppress(OSError, ValueError):  # a log that nobody takes stops no service
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()


def set_up(form: str) -> None:
    """Everything of ours and of uvicorn's goes to stderr in this form."""
    handler = BatchHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    for name in ("router", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
    logging.getLogger("uvicorn.access").handlers = []
    logging.getLogger("uvicorn.access").propagate = False


async def keep_flushed() -> None:
    """Until it is cancelled: no line of ours is later than a quarter of a second."""
    while True:
        await asyncio.sleep(_FLUSH_S)
        for handler in logging.getLogger("router").handlers:
            handler.flush()


def _utc(created: float) -> str:
    return f"{_utc_second(int(created))}.{int(created % 1 * 1000):03d}Z"


@lru_cache(maxsize=1)
def _utc_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _PLAIN}
