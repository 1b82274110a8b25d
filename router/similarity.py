"""Similarity of two pictures: the structural similarity index (SSIM) at 128x128, a number up to 1.

    SSIM = (2 mx my + C1) (2 cxy + C2) / ((mx^2 + my^2 + C1) (vx + vy + C2)),  C1 = 2.55^2, C2 = 7.65^2

`m`, `v` and `c` are mean, variance and covariance (over n - 1) of the luma in a window of 8x8, and the
index is the mean over all such windows at every fourth row and column. Formula and constants
(K1 = 0.01, K2 = 0.03, L = 255): Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error
visibility to structural similarity", IEEE Transactions on Image Processing 13 (4), 2004. The windows are
those of FFmpeg's `ssim` filter instead of the paper's Gaussian ones: whole numbers, and a few milliseconds
without any library. Luma is ITU-R 601, resized by area whatever the shape of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from operator import mul

from router import images
from router.types import RawImage

SIDE = 128
"""Pixels a side at which pictures are compared: structure counts, grain does not."""

_CELL = 4
_CELLS = SIDE // _CELL
_PIXELS = (2 * _CELL) ** 2
# Both constants are scaled as the sums below are: by the window's pixels squared, and by n (n - 1).
_C1 = (0.01 * 255) ** 2 * _PIXELS * _PIXELS
_C2 = (0.03 * 255) ** 2 * _PIXELS * (_PIXELS - 1)


def similarity(one: RawImage, other: RawImage) -> float:
    """1 for equal pictures, about 0 for unrelated ones, below 0 for a negative. Blocks for some 10 ms."""
    x, y = images.luma(one, SIDE, SIDE), images.luma(other, SIDE, SIDE)
    sums = [_windows(values) for values in (x, y, _products(x, x), _products(y, y), _products(x, y))]
    found = list(map(_ssim, *sums))
    return sum(found) / len(found)


def _ssim(x: int, y: int, xx: int, yy: int, xy: int) -> float:
    """Of one window, from the sums over its pixels."""
    variances = _PIXELS * (xx + yy) - x * x - y * y
    covariance = _PIXELS * xy - x * y
    means = (2 * x * y + _C1) / (x * x + y * y + _C1)
    return means * (2 * covariance + _C2) / (variances + _C2)


def _products(x: Sequence[int], y: Sequence[int]) -> list[int]:
    return list(map(mul, x, y))


def _windows(values: Sequence[int]) -> list[int]:
    """The sum over every window of two by two cells, in rows."""
    rows = _added([values[start : start + SIDE] for start in range(0, len(values), SIDE)], _CELL)
    cells = [list(map(sum, zip(*[row[i::_CELL] for i in range(_CELL)], strict=True))) for row in rows]
    lines = [list(map(sum, pairwise(row))) for row in cells]
    return [a + b for line, below in pairwise(lines) for a, b in zip(line, below, strict=True)]


def _added(rows: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """Every `count` rows as their sum."""
    return [
        list(map(sum, zip(*rows[start : start + count], strict=True))) for start in range(0, len(rows), count)
    ]
