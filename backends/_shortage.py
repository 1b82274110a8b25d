"""Shortage: the numbers in what a library says when the device had not the memory."""

from __future__ import annotations

import re

_ASKED = (
    re.compile(r"[Tt]ried to allocate ([\d.]+ ?\w+)"),  # torch, CUDA and CPU
    re.compile(r"requested buffer of size (\d+)"),  # ONNX Runtime
)
_FREE = re.compile(r"total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free")  # torch, CUDA


def told(exc: BaseException) -> str:
    """`2.00 GiB more were asked for where 1.00 GiB of 79.15 GiB were free`; empty if it gives none."""
    text = _text_of(exc)
    found = next((found[1] for pattern in _ASKED if (found := pattern.search(text))), "")
    if not found:
        return ""
    number = found.removesuffix(" bytes")
    asked = f"{int(number):,} bytes" if number.isdigit() else found
    free = _FREE.search(text)
    return f"{asked} more were asked for" + (f" where {free[2]} of {free[1]} were free" if free else "")


def _text_of(exc: BaseException | None) -> str:
    """Its words and those of what it came from: the lane's `MemoryError` has them from the library."""
    said: list[str] = []
    while exc is not None and len(said) < 4:
        said.append(str(exc))
        exc = exc.__cause__ or exc.__context__
    return " ".join(said)
