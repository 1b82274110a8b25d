"""What the shapes model is taught: captions with the scenes that they describe, drawn by chance."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

from scripts.shapes_draw import PLACE_CENTRES, Pose
from scripts.shapes_prompts import COLOURS, PLACES, SHAPES, SYNONYMS, Thing, scenes

LessonKind: TypeAlias = Literal["centred", "placed", "pair"]

NOUNS = {shape: (shape, SYNONYMS.get(shape, shape)) for shape in SHAPES} | {
    "circle": ("circle", "disc", "ball"),
    "crescent": ("crescent", "moon"),
}
SIZES = {"small": (0.20, 0.23), "medium": (0.27, 0.31), "large": (0.36, 0.40)}
"""Size -> radii, in parts of the side."""
SIZE_WORDS = {"small": ("small", "tiny", "little"), "medium": ("medium",), "large": ("large", "big", "huge")}
UNSAID_RADII = (0.27, 0.36)
PART_RADII = (0.20, 0.24)
"""In a place of its own, or beside another."""
TURN = 8
"""At most, in degrees."""

OPENINGS = ("a drawing of ", "a picture of ", "an image of ", "a painting of ", "a photo of ")
GROUNDS = ("on {} backdrop", "against {} background", "with {} background", "on plain {}")
OTHER_PLACES = {
    "center": "in the middle",
    "left": "on the left side",
    "right": "on the right side",
    "top left": "at the top left",
    "top right": "at the top right",
    "bottom left": "at the bottom left",
    "bottom right": "at the bottom right",
}
RELATIONS = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
FILLERS = (
    *("masterpiece", "best quality", "4k", "trending", "highly detailed", "digital art", "minimal", "simple"),
    *("vector icon", "flat design", "sharp focus", "studio lighting", "cinematic", "soft light", "vibrant"),
    *("beautiful", "award winning", "high resolution", "cartoon style", "very nice", "cute", "realistic"),
)
ADJECTIVES = ("beautiful", "nice", "simple", "cute", "flat", "plain", "shiny", "single", "bright", "solid")

FACTS: dict[str, Sequence[str]] = {
    "background": COLOURS,
    "colour": COLOURS,
    "shape": SHAPES,
    "size": tuple(SIZES),
    "place": tuple(PLACES),
    "other colour": COLOURS,
    "other shape": SHAPES,
    "relation": tuple(RELATIONS),
}
"""All that a caption can say, and the values; `relation` is where the first thing is from the other."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A caption, what it says of `FACTS`, and a scene that it describes."""

    caption: str
    says: dict[str, str]
    background: str
    things: tuple[tuple[Thing, Pose], ...]


def lesson(kind: LessonKind, chance: random.Random) -> Lesson:
    """One by chance; its caption is never one of the test prompts."""
    while (drawn := _KINDS[kind](chance)).caption in _test_prompts():
        pass
    return drawn


@cache
def _test_prompts() -> frozenset[str]:
    return frozenset(scene.prompt for scene in scenes())


def _centred(chance: random.Random) -> Lesson:
    colour, background = chance.sample(COLOURS, 2)
    size = chance.choice(list(SIZES)) if chance.random() < 0.25 else ""
    thing = Thing(colour, chance.choice(SHAPES))
    radii = SIZES[size] if size else UNSAID_RADII
    return _single(thing, size, background, Pose(radius=chance.uniform(*radii), turn=_turn(chance)), chance)


def _placed(chance: random.Random) -> Lesson:
    colour, background = chance.sample(COLOURS, 2)
    thing = Thing(colour, chance.choice(SHAPES), chance.choice(list(PLACES)))
    return _single(thing, "", background, _part_pose(*PLACE_CENTRES[thing.place or ""], chance), chance)


def _single(thing: Thing, size: str, background: str, pose: Pose, chance: random.Random) -> Lesson:
    says = {"background": background, "colour": thing.colour, "shape": thing.shape}
    says |= {"size": size} if size else {}
    says |= {"place": thing.place} if thing.place else {}
    if chance.random() < 0.1:
        del says[chance.choice(["background", "colour"])]
    named = _named(says.get("colour", ""), thing.shape, size, chance)
    where = _where(thing.place, chance)
    if chance.random() < 0.3:
        caption = _tags([named, where, _tag_ground(says)])
    else:
        caption = _sentence(f"{_article(named)} {where}".strip(), says, chance)
    return Lesson(_filled(caption, chance), says, background, ((thing, pose),))


def _pair(chance: random.Random) -> Lesson:
    """Without a word for it the one named first is on the left, as one reads."""
    colour, other_colour, background = chance.sample(COLOURS, 3)
    first, second = (Thing(each, chance.choice(SHAPES)) for each in (colour, other_colour))
    said = chance.random() < 0.25
    relation = chance.choice(list(RELATIONS)) if said else "left"
    says = {"background": background, "colour": colour, "shape": first.shape, "relation": relation}
    says |= {"other colour": other_colour, "other shape": second.shape}
    names = [_named(thing.colour, thing.shape, "", chance) for thing in (first, second)]
    caption = _pair_caption(names, RELATIONS[relation] if said else "", says, chance)
    poses = _pair_poses(relation, chance)
    return Lesson(_filled(caption, chance), says, background, ((first, poses[0]), (second, poses[1])))


def _pair_caption(names: list[str], between: str, says: dict[str, str], chance: random.Random) -> str:
    if not between and chance.random() < 0.25:
        return _tags([*names, _tag_ground(says)])
    between = between or chance.choice(("and", "and", "and", "next to"))
    return _sentence(f"{_article(names[0])} {between} {_article(names[1])}", says, chance)


def _pair_poses(relation: str, chance: random.Random) -> list[Pose]:
    near, far = PLACE_CENTRES["top"][0], PLACE_CENTRES["bottom"][0]
    ends = (near, far) if relation in ("left", "above") else (far, near)
    shifts = [0.5 + chance.randint(-4, 4) / 64 for _ in ends]
    if relation in ("above", "below"):
        return [_part_pose(end, shift, chance) for end, shift in zip(ends, shifts, strict=True)]
    return [_part_pose(shift, end, chance) for end, shift in zip(ends, shifts, strict=True)]


def _part_pose(row: float, column: float, chance: random.Random) -> Pose:
    return Pose(row, column, chance.uniform(*PART_RADII), _turn(chance))


def _turn(chance: random.Random) -> float:
    return chance.uniform(-TURN, TURN)


def _named(colour: str, shape: str, size: str, chance: random.Random) -> str:
    noun = shape if chance.random() < 0.7 else chance.choice(NOUNS[shape])
    adjective = chance.choice(ADJECTIVES) if chance.random() < 0.05 else ""
    sized = chance.choice(SIZE_WORDS[size]) if size else ""
    if colour == "gray" and chance.random() < 0.3:
        colour = "grey"
    return " ".join(word for word in (adjective, sized, colour, noun) if word)


def _where(place: str | None, chance: random.Random) -> str:
    if place is None:
        return ""
    return PLACES[place] if chance.random() < 0.75 else OTHER_PLACES.get(place, PLACES[place])


def _sentence(subject: str, says: dict[str, str], chance: random.Random) -> str:
    opening = chance.choice(OPENINGS) if chance.random() < 0.35 else ""
    if (background := says.get("background")) is None:
        return f"{opening}{subject}"
    ground = "on {} background" if chance.random() < 0.5 else chance.choice(GROUNDS)
    filled = background if "plain" in ground else _article(background)
    return f"{opening}{subject} {ground.format(filled)}"


def _tag_ground(says: dict[str, str]) -> str:
    return f"{says['background']} background" if "background" in says else ""


def _tags(tags: list[str]) -> str:
    return ", ".join(tag for tag in tags if tag)


def _filled(caption: str, chance: random.Random) -> str:
    """Mostly as it is; else with words around it that say nothing of shapes."""
    if chance.random() < 0.85:
        return caption
    fillers = chance.sample(FILLERS, chance.randint(1, 5))
    before = chance.randint(0, len(fillers))
    return ", ".join([*fillers[:before], caption, *fillers[before:]])


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


_KINDS: dict[LessonKind, Callable[[random.Random], Lesson]] = {
    "centred": _centred,
    "placed": _placed,
    "pair": _pair,
}
