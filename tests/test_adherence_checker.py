"""The pixel checker of the shapes model: right on drawn truth, and it says so when a picture is wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from scripts.shapes_check import judge, look, recognise
from scripts.shapes_draw import PALETTE, SIDE, Pixels, Pose, coverage, draw
from scripts.shapes_measure import Score, score
from scripts.shapes_paint import paint
from scripts.shapes_prompts import COLOURS, PLACES, SHAPES, Scene, Thing, scenes

RED_CIRCLE = Scene("one", "a red circle on a white background", "white", (Thing("red", "circle"),))
TOP_LEFT = Scene("place", "a red star in the top left corner", "white", (Thing("red", "star", "top left"),))
PAIR = Scene("two", "a red star and a blue ring", "white", (Thing("red", "star"), Thing("blue", "ring")))


def drawn_with(scene: Scene, *things: Thing, background: str | None = None) -> Pixels:
    """What another scene looks like, to be judged as if it were `scene`."""
    return draw(replace(scene, things=things, background=background or scene.background), seed=0)


def test_there_are_500_fixed_prompts() -> None:
    asked = scenes()
    assert asked == scenes()
    assert Counter(scene.kind for scene in asked) == {"one": 324, "place": 90, "two": 86}
    assert asked[0].prompt == "a red circle on a brown background"
    assert asked[-1].prompt == scenes()[-1].prompt
    assert len({(scene.prompt) for scene in asked}) > 490


def test_prompts_cover_every_colour_shape_and_place() -> None:
    asked = scenes()
    singles = Counter((thing.colour, thing.shape) for scene in asked[:324] for thing in scene.things)
    assert set(singles.values()) == {3}
    assert len(singles) == len(COLOURS) * len(SHAPES)
    assert {thing.place for scene in asked[324:414] for thing in scene.things} == set(PLACES)


def test_nothing_asked_for_hides_in_the_background() -> None:
    for scene in scenes():
        colours = [scene.background, *(thing.colour for thing in scene.things)]
        assert len(set(colours)) == len(colours)


def test_drawn_truth_is_judged_right() -> None:
    asked = scenes()[::5]
    scores = score(asked, (draw(scene, seed) for seed, scene in enumerate(asked)))
    assert {kind for kind, _ in scores} == {"one", "place", "two"}
    assert min(found.share for found in scores.values()) > 0.99


def test_drawn_truth_with_noise_and_soft_edges_is_judged_right() -> None:
    asked = scenes()[::12]
    noise = np.random.default_rng(0).normal(0, 12, (SIDE, SIDE, 3))
    blurred = (_soft(draw(scene, seed)) for seed, scene in enumerate(asked))
    scores = score(asked, (np.clip(pixels + noise, 0, 255).astype(np.uint8) for pixels in blurred))
    assert min(found.share for found in scores.values()) > 0.95


@pytest.mark.parametrize(
    ("thing", "background", "wrong"),
    [
        (Thing("orange", "circle"), "white", {"colour"}),
        (Thing("red", "square"), "white", {"shape"}),
        (Thing("red", "ring"), "white", {"shape"}),
        (Thing("red", "circle"), "yellow", {"background"}),
        (Thing("blue", "star"), "black", {"colour", "shape", "background"}),
    ],
)
def test_a_wrong_picture_is_wrong_in_what_is_wrong(thing: Thing, background: str, wrong: set[str]) -> None:
    verdict = judge(RED_CIRCLE, drawn_with(RED_CIRCLE, thing, background=background))
    assert {measure for measure, right in verdict.items() if not right} == wrong | {"all"}


def test_an_empty_picture_has_only_its_background() -> None:
    verdict = judge(RED_CIRCLE, drawn_with(RED_CIRCLE))
    assert verdict == {"background": True, "colour": False, "shape": False, "all": False}


def test_a_second_thing_that_nobody_asked_for_is_wrong() -> None:
    verdict = judge(RED_CIRCLE, drawn_with(RED_CIRCLE, Thing("red", "circle"), Thing("red", "circle")))
    assert verdict == {"background": True, "colour": False, "shape": False, "all": False}


def test_a_thing_in_another_place_is_wrong() -> None:
    for place in PLACES:
        verdict = judge(TOP_LEFT, drawn_with(TOP_LEFT, Thing("red", "star", place)))
        assert verdict["colour"]
        assert verdict["shape"]
        assert verdict["place"] == verdict["all"] == (place == "top left")


def test_two_things_with_their_colours_swapped_are_not_the_ones_asked_for() -> None:
    verdict = judge(PAIR, drawn_with(PAIR, Thing("blue", "star"), Thing("red", "ring")))
    assert verdict == {"background": True, "colour": True, "shape": True, "all": False}


def test_one_of_two_things_is_not_enough() -> None:
    verdict = judge(PAIR, drawn_with(PAIR, Thing("red", "star")))
    assert not verdict["colour"]
    assert not verdict["shape"]


def test_touching_things_of_two_colours_are_two() -> None:
    pixels = np.full((SIDE, SIDE, 3), PALETTE["white"], dtype=np.uint8)
    pixels[40:90, 20:64] = PALETTE["red"]
    pixels[40:90, 64:108] = PALETTE["blue"]
    sight = look(pixels, split_colours=True)
    assert {thing.colour for thing in sight.things} == {"red", "blue"}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [0.12, 0.25, 0.45])
def test_shapes_are_recognised_at_any_size_and_turn(shape: str, radius: float) -> None:
    for turn in (-13, 5, 11):
        found, overlap = recognise(coverage(shape, Pose(radius=radius, turn=turn)) > 0.5)
        assert found == shape
        assert overlap > 0.75


def test_pure_noise_is_judged_wrong() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    assert not judge(RED_CIRCLE, noise)["all"]


def test_intervals_are_wilson_s() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20.
    assert Score(81, 263).interval == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert Score(15, 148).interval == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert Score(0, 20).interval == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_pictures_are_made_through_the_router() -> None:
    asked = list(enumerate(scenes()))[::60]
    pictures = paint(asked, steps=1, backend="fake", source="")
    assert {pixels.shape for pixels in pictures} == {(SIDE, SIDE, 3)}
    scores = score([scene for _, scene in asked], pictures)
    assert {kind for kind, _ in scores} == {"one", "place", "two"}
    assert not any(scores[kind, "all"].hits for kind, _ in scores)


def _soft(pixels: Pixels) -> Pixels:
    """Edges three pixels wide, as a decoder makes them."""
    padded = np.pad(pixels.astype(float), ((1, 1), (1, 1), (0, 0)), mode="edge")
    shifted = [padded[row : row + SIDE, column : column + SIDE] for row in range(3) for column in range(3)]
    return np.mean(shifted, axis=0).astype(np.uint8)
