"""Exchange: one request and its reply, as log and metrics see them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from router.record import Record, line_of


@dataclass(slots=True)
class Exchange:
    """Made by the gate, filled in on the way, written down at the end."""

    id: str
    started: float = field(default_factory=time.perf_counter)
    key: str = ""
    """Name of the API key, never the key; `anonymous` where none is wanted."""
    status: int = 0
    code: str = ""
    """Of the error, if it became one."""
    record: Record | None = None
    """How the router did it, if it was a request for pictures."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else the log says of it."""
    is_over: bool = False
    """Whether it was written down."""

    def take(self, record: Record) -> bool:
        """The `Take` of the router's recorder. A job's record is not this request's, though it began here."""
        if self.is_over or self.record is not None or record.request_id != self.id:
            return False
        self.record = record
        return True

    def line(self, method: str, route: str, seconds: float) -> dict[str, Any]:
        """All of it, for the log. `seconds` are those of HTTP too, `router_s` those of the router alone."""
        self.is_over = True
        line = {
            "request_id": self.id,
            "method": method,
            "route": route,
            "status": self.status,
            "code": self.code,
            "seconds": round(seconds, 6),
            "key": self.key,
            **self.facts,
        }
        if self.record is None:
            return line
        made = line_of(self.record)
        made["router_s"] = made.pop("seconds", 0.0)
        made["code"] = self.code or self.record.code  # an error within a stream is no error of HTTP
        return line | made


def exchange_of(request: Request) -> Exchange:
    exchange: Exchange = request.scope["exchange"]
    return exchange
