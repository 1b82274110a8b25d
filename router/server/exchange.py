"""Exchange: one request and its reply, as log and metrics see them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request


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
    facts: dict[str, Any] = field(default_factory=dict)
    """What else the log says of it: model, instance, pictures."""


def exchange_of(request: Request) -> Exchange:
    exchange: Exchange = request.scope["exchange"]
    return exchange
