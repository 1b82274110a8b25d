"""The id of the request in hand: set by who has one (the HTTP gate, a job), else made by the router.

Tasks of a lane run in a copy of their caller's setting, so that it is known there too.
"""

from __future__ import annotations

import random
from contextvars import ContextVar

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")

_ids = random.Random()  # ids are to be distinct, not secret, and the kernel's randomness costs a call


def new_request_id() -> str:
    """16 hexadecimal digits."""
    return f"{_ids.getrandbits(64):016x}"
