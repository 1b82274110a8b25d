"""Safetensors files written by hand: any header, and as many bytes behind it as wanted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "U8": 1}


def described(shapes: Mapping[str, tuple[int, ...]], dtype: str = "F16") -> dict[str, Any]:
    """The header's JSON of tensors that lie one behind the other."""
    header: dict[str, Any] = {}
    reached = 0
    for name, shape in shapes.items():
        end = reached + math.prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [reached, end]}
        reached = end
    return header


def write(file: Path, header: Mapping[str, Any], size: int | None = None) -> Path:
    """The file, its weights a hole of `size` bytes, by default as many as its tensors take."""
    text = json.dumps(header).encode()
    if size is None:
        size = max((value["data_offsets"][1] for value in header.values()), default=0)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + size)
    return file


def checkpoint(file: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "F16") -> Path:
    return write(file, described(shapes, dtype))
