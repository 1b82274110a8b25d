"""Header: names, types and shapes of the tensors in a safetensors file, read without its weights.

Format: 8 bytes little-endian length, JSON of that length, then the tensors' bytes without a gap
(safetensors README, "Format").
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEADER_LIMIT_BYTES = 100_000_000
"""The format's own limit."""

_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6} | {
    f"{kind}{bits}": bits for bits in (16, 32, 64) for kind in "UIF"
}
_BITS |= {"BF16": 16, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8}

_PICKLE = (b"PK\x03\x04", *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)))
"""How what `torch.save` writes begins: a zip archive, in old versions the pickle itself."""


class HeaderError(ValueError):
    """What is wrong with the file: the rest of a sentence that begins with it. `cure` is its end."""

    def __init__(self, message: str, cure: str = "copy it again") -> None:
        super().__init__(message)
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Tensor:
    """What the header says of one tensor."""

    dtype: str
    """As the format spells it: `F16`, `BF16`, `F8_E4M3`."""
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """All that a safetensors file says of itself."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    @classmethod
    def read(cls, file: Path) -> Header:
        """Read it and check it against the file's size. Raises `HeaderError`."""
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            length = _length(start, size)
            raw = _parsed(stream.read(length))
        metadata = _metadata(raw.pop("__metadata__", {}))
        spans = [_span(value) for value in raw.values()]
        _check_spans(spans, size - 8 - length)
        tensors = map(_tensor, raw.values(), spans)
        return cls(dict(zip(raw, tensors, strict=True)), metadata)


def _length(start: bytes, size: int) -> int:
    """Bytes of the JSON. A file that never was safetensors mostly says an absurd number here."""
    length = int.from_bytes(start, "little")
    if size >= 8 and length <= min(HEADER_LIMIT_BYTES, size - 8):
        return length
    if start.startswith(_PICKLE):
        raise HeaderError(
            "is a pickle under another name, which can run code when it is read", "convert it to safetensors"
        )
    if start.startswith(b"GGUF"):
        raise HeaderError("is a GGUF file", "name a safetensors file")
    if size < 8 or length <= HEADER_LIMIT_BYTES:
        raise HeaderError("is cut short")
    raise HeaderError(
        f"is damaged: its header would have {length:,} bytes, the most is {HEADER_LIMIT_BYTES:,}"
    )


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise HeaderError("is damaged in its header") from exc
    if not isinstance(parsed, dict):
        raise HeaderError("is damaged in its header")
    return parsed


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise HeaderError("is damaged in its header")
    return {str(key): str(text) for key, text in value.items()}


def _span(value: Any) -> tuple[int, int]:
    """Where the tensor's bytes begin and end."""
    match value:
        case {"data_offsets": [int(begin), int(end)]} if 0 <= begin <= end:
            return begin, end
    raise HeaderError("is damaged in its header")


def _check_spans(spans: Iterable[tuple[int, int]], size: int) -> None:
    """The tensors lie one behind the other, and end where the file ends."""
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise HeaderError("is damaged: its tensors overlap or leave a gap")
        reached = end
    if reached > size:
        raise HeaderError(f"is cut short: {reached - size:,} bytes are missing")
    if reached < size:
        raise HeaderError(f"is damaged: {size - reached:,} bytes belong to no tensor")


def _tensor(value: dict[str, Any], span: tuple[int, int]) -> Tensor:
    match value:
        case {"dtype": str(dtype), "shape": [*shape]} if all(_is_size(axis) for axis in shape):
            tensor = Tensor(dtype, tuple(shape), span[1] - span[0])
            bits = _BITS.get(dtype)
            if bits is None or tensor.elements * bits == tensor.size_bytes * 8:
                return tensor
    raise HeaderError("is damaged in its header")


def _is_size(axis: Any) -> bool:
    return isinstance(axis, int) and axis >= 0
