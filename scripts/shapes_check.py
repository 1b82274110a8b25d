"""Says by pixels alone what a picture of the shapes model shows, and whether that is what was asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from scripts.shapes_draw import PALETTE, PLACE_CENTRES, Mask, Pixels, Plane, Pose, coverage
from scripts.shapes_prompts import COLOURS, SHAPES, Scene

Labels: TypeAlias = NDArray[np.intp]

BORDER = 5
"""Pixels at the edge whose majority colour is the background."""
SMALLEST_PART = 0.006
"""Of all pixels: anything smaller is a speck."""
TURNS = (-24, -16, -8, 0, 8, 16, 24)
GRID = 48
REACH = 2.2
"""Half the side of the comparison grid, in radii of the disc that has the mask's area."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing in a picture; centre in parts of height and width, `overlap` with the best template."""

    colour: str
    shape: str
    row: float
    column: float
    overlap: float

    @property
    def place(self) -> str:
        """The nearest of the nine places."""
        return min(
            PLACE_CENTRES,
            key=lambda place: np.hypot(
                self.row - PLACE_CENTRES[place][0], self.column - PLACE_CENTRES[place][1]
            ),
        )


@dataclass(frozen=True, slots=True)
class Sight:
    """What a picture shows, the largest thing first."""

    background: str
    things: tuple[Seen, ...]


def look(pixels: Pixels, *, split_colours: bool = False) -> Sight:
    """Finds background and things in a picture, uint8 [height, width, 3].

    With `split_colours` touching areas of different colours are different things; without, a thing
    may be of several colours and has the commonest.
    """
    labels = nearest_colours(pixels)
    background = _commonest(_border(labels))
    grounds = [labels == colour for colour in range(len(COLOURS)) if colour != background]
    if not split_colours:
        grounds = [labels != background]
    parts = sorted((part for ground in grounds for part in _parts(ground)), key=np.sum, reverse=True)
    return Sight(COLOURS[background], tuple(_seen(part, labels, background) for part in parts))


def judge(scene: Scene, pixels: Pixels) -> dict[str, bool]:
    """Whether the picture has what was asked for: exactly as many things, each as it should be.

    `all` holds when colour, shape and place belong to one and the same thing, and the background is right.
    """
    sight = look(pixels, split_colours=len(scene.things) > 1)
    wanted, seen = scene.things, sight.things
    found = {
        "background": sight.background == scene.background,
        "colour": sorted(thing.colour for thing in seen) == sorted(thing.colour for thing in wanted),
        "shape": sorted(thing.shape for thing in seen) == sorted(thing.shape for thing in wanted),
    }
    if scene.kind == "place":
        found["place"] = [thing.place for thing in seen] == [thing.place for thing in wanted]
    together = {(thing.colour, thing.shape) for thing in seen} == {
        (thing.colour, thing.shape) for thing in wanted
    }
    return found | {"all": together and all(found.values())}


def nearest_colours(pixels: Pixels) -> Labels:
    """The index in `COLOURS` of each pixel's nearest palette colour, [height, width]."""
    palette = np.asarray([PALETTE[colour] for colour in COLOURS], dtype=np.float32)
    # |pixel - colour|^2 without |pixel|^2, which is the same for every colour.
    distances = (palette**2).sum(axis=1) - 2 * pixels.astype(np.float32) @ palette.T
    nearest: Labels = distances.argmin(axis=-1)
    return nearest


def _border(labels: Labels) -> Labels:
    inner = np.zeros(labels.shape, dtype=bool)
    inner[BORDER:-BORDER, BORDER:-BORDER] = True
    return labels[~inner]


def _commonest(labels: Labels) -> int:
    return int(np.bincount(labels.ravel()).argmax())


def _parts(ground: Mask) -> Iterator[Mask]:
    """The connected parts, without specks, and without the seams that are two pixels wide at most."""
    opened = ~_grown(~ground)
    parts = _connected(opened)
    for part in np.unique(parts[parts > 0]):
        mask = _grown(parts == part) & ground
        if mask.mean() >= SMALLEST_PART:
            yield mask


def _grown(mask: Mask) -> Mask:
    """With the eight neighbours of every pixel."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    grown: Mask = rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
    return grown


def _connected(mask: Mask) -> Labels:
    """A number for each connected part, 0 outside: the largest index in it, spread until it settles."""
    numbers = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(numbers, 1)
        spread = np.maximum.reduce(
            [padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
        )
        spread = np.where(mask, spread, 0)
        if (spread == numbers).all():
            return numbers
        numbers = spread


def _seen(mask: Mask, labels: Labels, background: int) -> Seen:
    inside = labels[mask & (labels != background)]
    shape, overlap = recognise(mask)
    row, column = _centre(mask)
    height, width = mask.shape
    return Seen(COLOURS[_commonest(inside)], shape, row / height, column / width, overlap)


def _centre(mask: Mask) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(rows.mean() + 0.5), float(columns.mean() + 0.5)


def recognise(mask: Mask) -> tuple[str, float]:
    """The shape whose template overlaps the mask most, and by how much (intersection over union)."""
    names, templates = _templates()
    sample = _normalised(mask).ravel()
    shared = (templates & sample).sum(axis=1)
    overlaps = shared / (templates.sum(axis=1) + sample.sum() - shared)
    best = int(overlaps.argmax())
    return names[best], float(overlaps[best])


@cache
def _templates() -> tuple[tuple[str, ...], Mask]:
    """Every shape at every turn, normalised, [templates, GRID * GRID]."""
    named = [
        (shape, _normalised(coverage(shape, Pose(turn=turn)) > 0.5).ravel())
        for shape in SHAPES
        for turn in TURNS
    ]
    return tuple(name for name, _ in named), np.stack([mask for _, mask in named])


def _normalised(mask: Mask) -> Mask:
    """Moved to its centre and scaled to a common area, [GRID, GRID]."""
    row, column = _centre(mask)
    reach = REACH * np.sqrt(mask.sum() / np.pi)
    offsets: Plane = ((np.arange(GRID) + 0.5) / GRID * 2 - 1) * reach
    margin = int(reach) + 2
    rows = np.floor(row + offsets).astype(int) + margin
    columns = np.floor(column + offsets).astype(int) + margin
    sampled: Mask = np.pad(mask, margin)[np.ix_(rows, columns)]
    return sampled
