"""Similarity: the structural index against its formula in numpy, and what it says of known changes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from router.similarity import similarity
from router.types import RawImage

WINDOW, STRIDE = 8, 4


def picture(height: int = 192, width: int = 256) -> np.ndarray:
    """Slopes, stripes and a disc."""
    y, x = np.mgrid[0:height, 0:width]
    disc = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 4) ** 2
    planes = [x * 255 / width, (y // 16 % 2) * 200 + 20, disc * 180 + 30]
    return np.stack(planes, axis=-1).astype(np.uint8)


def raw(pixels: np.ndarray) -> RawImage:
    return RawImage(pixels.shape[0], pixels.shape[1], np.clip(pixels, 0, 255).astype(np.uint8).tobytes())


def luma(pixels: np.ndarray) -> np.ndarray:
    gray = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("L")
    return np.asarray(gray.resize((128, 128), Image.Resampling.BOX), dtype=np.float64)


def by_the_formula(one: np.ndarray, other: np.ndarray) -> float:
    """Wang et al. 2004, equation 13, with the windows written out."""
    x, y = (_windows(luma(pixels)) for pixels in (one, other))
    mx, my = x.mean(axis=1), y.mean(axis=1)
    vx, vy = x.var(axis=1, ddof=1), y.var(axis=1, ddof=1)
    covariance = ((x - mx[:, None]) * (y - my[:, None])).sum(axis=1) / (WINDOW**2 - 1)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    index = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(index.mean())


def _windows(gray: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(gray, (WINDOW, WINDOW))[::STRIDE, ::STRIDE]
    return windows.reshape(-1, WINDOW**2)


CHANGES = {
    "itself": lambda pixels: pixels,
    "darker": lambda pixels: pixels // 2,
    "noise": lambda pixels: pixels + np.random.default_rng(0).normal(0, 40, pixels.shape),
    "negative": lambda pixels: 255 - pixels,
    "turned": lambda pixels: pixels[::-1, ::-1],
    "flat": lambda pixels: np.full_like(pixels, 90),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_the_formula(change: str):
    pixels = picture()
    changed = CHANGES[change](pixels)
    assert similarity(raw(pixels), raw(changed)) == pytest.approx(by_the_formula(pixels, changed), abs=1e-12)


def test_it_tells_near_from_far():
    pixels = picture()
    found = {name: similarity(raw(pixels), raw(change(pixels))) for name, change in CHANGES.items()}
    assert found["itself"] == 1
    assert found["noise"] > found["turned"] > found["negative"]
    assert found["negative"] < 0


def test_sizes_and_shapes_may_differ():
    """Both are brought to one size: an enlarged picture is like its original."""
    small = Image.fromarray(picture())
    large = np.asarray(small.resize((1024, 512), Image.Resampling.BICUBIC))
    assert similarity(raw(picture()), raw(large)) > 0.95
    assert similarity(raw(picture(8, 8)), raw(picture(8, 8))) == 1
