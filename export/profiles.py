"""Shape profiles: the sizes that families are good at, and any other by WIDTHxHEIGHT."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from export.errors import UnsupportedExportError
from export.families import Family
from router.types import ShapeProfile

SHIPPED: Final[Mapping[str, Mapping[str, tuple[int, int]]]] = {
    "stable-diffusion": {
        "square": (512, 512),
        "portrait": (768, 512),
        "landscape": (512, 768),
    },
    # Buckets of about one megapixel that the models were trained on: SDXL report, appendix I.
    "stable-diffusion-xl": {
        "square": (1024, 1024),
        "portrait": (1216, 832),
        "landscape": (832, 1216),
        "tall": (1344, 768),
        "wide": (768, 1344),
    },
    "stable-diffusion-3": {
        "square": (1024, 1024),
        "portrait": (1216, 832),
        "landscape": (832, 1216),
        "tall": (1344, 768),
        "wide": (768, 1344),
    },
    "flux": {
        "square": (1024, 1024),
        "portrait": (1216, 832),
        "landscape": (832, 1216),
        "tall": (1344, 768),
        "wide": (768, 1344),
    },
}
"""Family -> name -> (height, width) in pixels."""

MAX_SIDE: Final = 4096
MAX_ROWS: Final = 32
MAX_T5_TOKENS: Final = 512
"""What the pipelines of SD3 and FLUX take at most."""

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.IGNORECASE | re.ASCII)


def profiles_of(
    family: Family,
    sizes: Sequence[str] = (),
    *,
    dtype: str = "float32",
    rows: Sequence[int] = (),
    text_length: int | None = None,
) -> tuple[ShapeProfile, ...]:
    """The profiles that these sizes stand for: names of `SHIPPED`, or WIDTHxHEIGHT in pixels.

    No size is the model's own; no rows are the family's; `text_length` is T5's, in tokens.
    Raises `UnsupportedExportError` for a size that the model cannot make.
    """
    asked = [_size(family, text) for text in sizes] or [family.own_size]
    for height, width in asked:
        _check_side(family, "height", height)
        _check_side(family, "width", width)
    return tuple(
        ShapeProfile(
            name=f"{width}x{height}",
            height=height,
            width=width,
            dtype=dtype,
            row_buckets=_row_buckets(family, rows),
            text_lengths=_text_lengths(family, text_length),
        )
        for height, width in dict.fromkeys(asked)
    )


def _size(family: Family, text: str) -> tuple[int, int]:
    known = SHIPPED[family.name]
    if text in known:
        return known[text]
    matched = _SIZE.fullmatch(text.strip())
    if matched is None:
        raise UnsupportedExportError(
            f"`profile` is {text[:40]!r}; for {family.name} use {', '.join(known)},"
            " or WIDTHxHEIGHT in pixels, such as 768x512."
        )
    return int(matched[2]), int(matched[1])


def _check_side(family: Family, name: str, side: int) -> None:
    most = min(MAX_SIDE, family.max_side or MAX_SIDE)
    if not family.min_side <= side <= most:
        raise UnsupportedExportError(
            f"The {name} of a `profile` is {side} pixels; this model takes {family.min_side} to {most}."
        )
    if side % family.size_multiple:
        below = side - side % family.size_multiple
        near = [each for each in (below, below + family.size_multiple) if family.min_side <= each <= most]
        raise UnsupportedExportError(
            f"The {name} of a `profile` is {side} pixels; this model takes multiples of"
            f" {family.size_multiple}: try {' or '.join(map(str, near))}."
        )


def _row_buckets(family: Family, rows: Sequence[int]) -> tuple[int, ...]:
    for count in rows:
        if not 1 <= count <= MAX_ROWS:
            raise UnsupportedExportError(f"`rows` holds {count}; use numbers from 1 to {MAX_ROWS}.")
    return tuple(sorted(set(rows))) or family.row_buckets


def _text_lengths(family: Family, t5_length: int | None) -> tuple[int, ...]:
    if t5_length is None:
        return family.text_lengths
    if family.t5_index is None:
        raise UnsupportedExportError(
            f"`text_length` is T5's, and {family.name} has no T5: leave it out; its length is"
            f" {family.text_lengths[0]} tokens."
        )
    if not 1 <= t5_length <= MAX_T5_TOKENS:
        raise UnsupportedExportError(f"`text_length` is {t5_length} tokens; use 1 to {MAX_T5_TOKENS}.")
    lengths = list(family.text_lengths)
    lengths[family.t5_index] = t5_length
    return tuple(lengths)
