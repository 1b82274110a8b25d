"""Sizes on the command line: by name and aspect ratio, rounded with leave alone, and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.command_line import as_object, configure, triptych

FIXED = '[[models.demo.instances]]\nbackend = "fake"\noptions = { profiles = ["64x64", "64x112"] }\n'


def parameters(*options: str) -> dict[str, Any]:
    (route,) = as_object(triptych("explain", "x", *options, "--json"))["routes"]
    found: dict[str, Any] = route["parameters"]
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--size", "s"), (32, 32)),
        (("--size", "M"), (48, 48)),
        (("--aspect", "16:9"), (88, 48)),
        (("--size", "m", "--aspect", "9:16"), (40, 72)),
        (("--size", "80x64"), (80, 64)),
    ],
)
def test_a_picture_is_as_large_as_its_name_says(
    folder: Path, options: tuple[str, ...], expected: tuple[int, int]
) -> None:
    assert triptych("generate", "a circle", *options, "-o", "a.png").exit_code == 0
    with Image.open(folder / "a.png") as picture:
        assert picture.size == expected


def test_a_size_is_rounded_with_leave_alone_and_told(folder: Path) -> None:
    refused = triptych("generate", "a circle", "--size", "70x64", "-o", "a.png")
    assert (refused.exit_code, list(folder.glob("*.png"))) == (3, [])
    made = triptych("generate", "a circle", "--size", "70x64", "--allow", "size", "-o", "a.png", "--json")
    (picture,) = as_object(made)["pictures"]
    said = "The size was changed from 64x70 to 64x72 (height x width), the nearest that can be served."
    assert picture["adjustments"] == [said]
    assert f"note: {said}" in triptych("explain", "x", "--size", "70x64", "--allow", "size").stderr


def test_fixed_shapes_are_named_by_what_they_have(folder: Path) -> None:
    configure(folder, FIXED)
    found = [parameters("--aspect", "16:9"), parameters("--size", "l")]
    assert [(each["width"], each["height"]) for each in found] == [(112, 64), (64, 64)]
    refused = triptych("explain", "x", "--size", "s")
    assert "64x64, 64x112" in refused.stdout
    changed = parameters("--size", "s", "--allow", "size")
    assert (changed["width"], changed["height"]) == (64, 64)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--size", "xl"), "`--size` is 'xl'; write s, m, l, or WIDTHxHEIGHT in pixels"),
        (("--aspect", "wide"), "`--aspect` is 'wide'; write WIDTH:HEIGHT"),
        (("--aspect", "1:1", "--size", "64x64"), "`--aspect` shapes a `--size` of s, m or l"),
        (("--allow", "colour"), "is 'colour', but must be 'size'"),
    ],
)
def test_a_wrong_one_is_told_by_its_option(folder: Path, options: tuple[str, ...], said: str) -> None:
    refused = triptych("generate", "x", *options)
    assert (refused.exit_code, said in refused.stderr) == (3, True), refused.stderr
