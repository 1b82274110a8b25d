"""The 500 test prompts of the shapes model: what is asked, and what the picture must then show."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

COLOURS = (
    *("red", "orange", "yellow", "green", "cyan", "blue"),
    *("purple", "pink", "brown", "black", "white", "gray"),
)
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "ring", "cross", "crescent")
SYNONYMS = {"circle": "disc", "square": "box", "diamond": "rhombus", "ring": "donut", "cross": "plus"}
PLACES = {
    "top left": "in the top left corner",
    "top": "at the top",
    "top right": "in the top right corner",
    "left": "on the left",
    "center": "in the center",
    "right": "on the right",
    "bottom left": "in the bottom left corner",
    "bottom": "at the bottom",
    "bottom right": "in the bottom right corner",
}

Kind: TypeAlias = Literal["one", "place", "two"]
KINDS: tuple[Kind, ...] = ("one", "place", "two")

PLACE_PROMPTS = 90
TWO_PROMPTS = 86
PROMPT_SEED = 500


@dataclass(frozen=True, slots=True)
class Thing:
    """A coloured shape, at one of `PLACES` or anywhere."""

    colour: str
    shape: str
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """A prompt and what it describes: one thing, one thing in a place, or two things."""

    kind: Kind
    prompt: str
    background: str
    things: tuple[Thing, ...]


def scenes() -> tuple[Scene, ...]:
    """The same 500 on every machine: 324 single things, 90 in a named place, 86 pairs.

    The picture of scene `i` is made with seed `i`.
    """
    chance = random.Random(PROMPT_SEED)
    return (*_singles(chance), *_placed(chance), *_pairs(chance))


def _singles(chance: random.Random) -> Iterator[Scene]:
    """Every colour of every shape in three wordings, each on a background of its own."""
    for shape in SHAPES:
        for colour in COLOURS:
            others = [other for other in COLOURS if other != colour]
            for wording, background in enumerate(chance.sample(others, 3)):
                prompt = _single_prompt(wording, colour, shape, background)
                yield Scene("one", prompt, background, (Thing(colour, shape),))


def _single_prompt(wording: int, colour: str, shape: str, background: str) -> str:
    return (
        f"{_a(colour)} {shape} on {_a(background)} background",
        f"{colour} {shape}, {background} background",
        f"a drawing of {_a(colour)} {SYNONYMS.get(shape, shape)} on {_a(background)} backdrop",
    )[wording]


def _placed(chance: random.Random) -> Iterator[Scene]:
    for index in range(PLACE_PROMPTS):
        place = list(PLACES)[index % len(PLACES)]
        shape = chance.choice(SHAPES)
        colour, background = chance.sample(COLOURS, 2)
        prompt = f"{_a(colour)} {shape} {PLACES[place]} on {_a(background)} background"
        yield Scene("place", prompt, background, (Thing(colour, shape, place),))


def _pairs(chance: random.Random) -> Iterator[Scene]:
    for _ in range(TWO_PROMPTS):
        shape, other_shape = chance.choices(SHAPES, k=2)
        colour, other_colour, background = chance.sample(COLOURS, 3)
        prompt = f"{_a(colour)} {shape} and {_a(other_colour)} {other_shape} on {_a(background)} background"
        yield Scene("two", prompt, background, (Thing(colour, shape), Thing(other_colour, other_shape)))


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
