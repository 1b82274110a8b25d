"""Draws the scenes of the test prompts: the truth that the pixel checker is checked against."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from scripts.shapes_prompts import Scene, Thing

Mask: TypeAlias = NDArray[np.bool_]
Pixels: TypeAlias = NDArray[np.uint8]
Plane: TypeAlias = NDArray[np.float64]

SIDE = 128
SMOOTHING = 4
"""Samples per pixel and axis."""

PALETTE = {
    "red": (225, 35, 35),
    "orange": (250, 150, 30),
    "yellow": (250, 228, 50),
    "green": (32, 158, 68),
    "cyan": (58, 204, 230),
    "blue": (32, 78, 220),
    "purple": (133, 38, 176),
    "pink": (255, 153, 197),
    "brown": (125, 70, 32),
    "black": (5, 5, 8),
    "white": (252, 252, 252),
    "gray": (140, 146, 142),
}

_THIRDS = (0.26, 0.5, 0.74)
PLACE_CENTRES = {
    "top left": (_THIRDS[0], _THIRDS[0]),
    "top": (_THIRDS[0], _THIRDS[1]),
    "top right": (_THIRDS[0], _THIRDS[2]),
    "left": (_THIRDS[1], _THIRDS[0]),
    "center": (_THIRDS[1], _THIRDS[1]),
    "right": (_THIRDS[1], _THIRDS[2]),
    "bottom left": (_THIRDS[2], _THIRDS[0]),
    "bottom": (_THIRDS[2], _THIRDS[1]),
    "bottom right": (_THIRDS[2], _THIRDS[2]),
}
"""Place -> (row, column) of its centre, in parts of the side."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a shape lies: centre and radius in parts of the side, `turn` in degrees."""

    row: float = 0.5
    column: float = 0.5
    radius: float = 0.35
    turn: float = 0.0


def draw(scene: Scene, seed: int) -> Pixels:
    """The scene as it should look, [SIDE, SIDE, 3]; the seed varies sizes, turns and free places."""
    pixels: Plane = np.empty((SIDE, SIDE, 3))
    pixels[:] = PALETTE[scene.background]
    for thing, pose in zip(scene.things, _poses(scene, random.Random(seed)), strict=True):
        covered = coverage(thing.shape, pose)[..., None]
        pixels = pixels * (1 - covered) + np.asarray(PALETTE[thing.colour]) * covered
    return pixels.round().astype(np.uint8)


def _poses(scene: Scene, chance: random.Random) -> list[Pose]:
    if len(scene.things) == 2:
        columns = chance.choice([_THIRDS[::2], _THIRDS[::-2]])
        return [_small(0.5 + chance.uniform(-0.1, 0.1), column, chance) for column in columns]
    return [_pose(thing, chance) for thing in scene.things]


def _pose(thing: Thing, chance: random.Random) -> Pose:
    if thing.place is None:
        return Pose(radius=chance.uniform(0.2, 0.4), turn=_turn(chance))
    return _small(*PLACE_CENTRES[thing.place], chance)


def _small(row: float, column: float, chance: random.Random) -> Pose:
    return Pose(row, column, chance.uniform(0.17, 0.21), _turn(chance))


def _turn(chance: random.Random) -> float:
    return chance.uniform(-12, 12)


def coverage(shape: str, pose: Pose, side: int = SIDE) -> Plane:
    """How much of each pixel the shape covers, 0 to 1, [side, side]."""
    fine = side * SMOOTHING
    steps = (np.arange(fine) + 0.5) / fine
    up = (pose.row - steps)[:, None] / pose.radius
    right = (steps - pose.column)[None, :] / pose.radius
    cosine, sine = math.cos(math.radians(pose.turn)), math.sin(math.radians(pose.turn))
    inside = _INSIDE[shape](right * cosine + up * sine, up * cosine - right * sine)
    covered: Plane = inside.reshape(side, SMOOTHING, side, SMOOTHING).mean(axis=(1, 3))
    return covered


def _in_star(x: Plane, y: Plane, points: int = 5, waist: float = 0.4) -> Mask:
    """Between a tip (radius 1) and a waist corner the outline is straight."""
    sector = math.pi / points
    angle = np.arctan2(x, y) % (2 * sector)
    folded = np.minimum(angle, 2 * sector - angle)
    along, across = np.hypot(x, y) * np.cos(folded), np.hypot(x, y) * np.sin(folded)
    corner = waist * math.cos(sector), waist * math.sin(sector)
    inside: Mask = across * (1 - corner[0]) < (1 - along) * corner[1]
    return inside


def _in_heart(x: Plane, y: Plane) -> Mask:
    """Two discs, and below them a wedge that touches both."""
    lobes = np.hypot(abs(x) - 0.44, y - 0.36) < 0.5
    wedge = (y > -0.95) & (y < 0.3) & (abs(x) < (y + 0.95) * 0.73)
    inside: Mask = lobes | wedge
    return inside


_INSIDE: dict[str, Callable[[Plane, Plane], Mask]] = {
    "circle": lambda x, y: np.hypot(x, y) < 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.85,
    "triangle": lambda x, y: (y > -0.6) & (y < 1 - 1.75 * abs(x)),
    "star": _in_star,
    "heart": _in_heart,
    "diamond": lambda x, y: abs(x) / 0.65 + abs(y) < 1,
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.76) < 0.24,
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.32) & (np.maximum(abs(x), abs(y)) < 1),
    "crescent": lambda x, y: (np.hypot(x, y) < 1) & (np.hypot(x - 0.45, y) > 0.8),
}
"""Shape -> which points lie in it; its radius is 1, its centre the origin, and `y` grows upwards."""
