"""Links: addresses that carry their own proof, for `<img>` and `EventSource`, which send no headers."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

WallClock: TypeAlias = Callable[[], float]
"""Seconds since the epoch, like `time.time`."""

SECRET_BYTES = 32


class Links:
    """Signs a path, good for reading that one path until it expires. HMAC-SHA256."""

    def __init__(self, good_for_s: float, *, on: bool = True, clock: WallClock = time.time) -> None:
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._good_for_s = good_for_s
        self._on = on
        self._clock = clock

    def use_secret(self, secret: bytes) -> None:
        """Sign with the secret of earlier runs instead of one made for this run."""
        self._secret = secret

    def sign(self, path: str) -> str:
        """The path with its proof; as it is where no key is wanted anyway."""
        if not self._on:
            return path
        expires = f"{int(self._clock() + self._good_for_s)}"
        return f"{path}?expires={expires}&signature={self._signature(path, expires)}"

    def holds(self, path: str, query: Mapping[str, str]) -> bool:
        """Whether the proof is ours, for this path, and not expired."""
        expires, signature = query.get("expires", ""), query.get("signature", "")
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 12 and signature.isascii()):
            return False
        good = hmac.compare_digest(signature, self._signature(path, expires))
        return good and self._clock() < int(expires)

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()
