"""The latents of lessons, straight from the drawing formulas: equal to the encoder's, without its cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from scripts.shapes_draw import PALETTE, Pose, coverage
from scripts.shapes_lessons import Lesson

CELLS = 16
"""Latent cells per side; each stands for 8x8 pixels."""
SCALING = 1.5
TILT = 4.0
"""Weight of the fourth channel: the brightness of a cell's left half minus its right half's."""
_DRAWN_SIDE = 64
_RADIUS_STEP, _TURN_STEP = 0.005, 1.0


def latents(lessons: Sequence[Lesson]) -> torch.Tensor:
    """Scaled latents of the lessons' scenes, float32 [lessons, 4, 16, 16]."""
    return torch.from_numpy(np.stack([_latent(lesson) for lesson in lessons])) * SCALING


def _latent(lesson: Lesson) -> NDArray[np.float32]:
    ground = _colour(lesson.background)
    latent = np.zeros((4, CELLS, CELLS), dtype=np.float32)
    latent[:3] = ground[:, None, None]
    for thing, pose in lesson.things:
        covered, tilt = footprint(thing.shape, *rounded(pose))
        contrast = _colour(thing.colour) - ground
        latent[:3] += contrast[:, None, None] * covered
        latent[3] += TILT * contrast.mean() * tilt
    return latent


def _colour(name: str) -> NDArray[np.float32]:
    """RGB from -1 to 1, as the encoder gets it."""
    return np.asarray(PALETTE[name], dtype=np.float32) / 127.5 - 1


def rounded(pose: Pose) -> tuple[float, float, float, float]:
    """To steps so small that nobody sees them, so that footprints come again."""
    radius = round(pose.radius / _RADIUS_STEP) * _RADIUS_STEP
    return pose.row, pose.column, radius, round(pose.turn / _TURN_STEP) * _TURN_STEP


@lru_cache(maxsize=60_000)
def footprint(
    shape: str, row: float, column: float, radius: float, turn: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The part of each cell that the shape covers, and by how much more of its left half, [16, 16] each."""
    drawn = coverage(shape, Pose(row, column, radius, turn), _DRAWN_SIDE).astype(np.float32)
    per_cell = _DRAWN_SIDE // CELLS
    halves = drawn.reshape(CELLS, per_cell, CELLS, 2, per_cell // 2).mean(axis=(1, 4))
    return halves.mean(axis=2), halves[..., 0] - halves[..., 1]
