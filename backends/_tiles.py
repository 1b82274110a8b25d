"""Tiles: a large picture as equal windows that overlap, so that an upscaler's memory has a bound."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Along one axis, in pixels of the small picture: what is read, and what of it is kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Windows of `tile` pixels that keep every pixel once, at least `overlap` away from a window's edge.

    Only at the picture's own edge do they keep up to it. All are equally long, so that they can be
    joined to one batch; what is no longer than a tile is one window.
    """
    if length <= tile:
        return [Span(0, length, 0, length)]
    starts = [*range(0, length - tile, tile - 2 * overlap), length - tile]
    stops = [start + tile - overlap for start in starts[:-1]] + [length]
    return [
        Span(start, start + tile, keep_start, keep_stop)
        for start, keep_start, keep_stop in zip(starts, [0, *stops], stops, strict=False)
    ]
