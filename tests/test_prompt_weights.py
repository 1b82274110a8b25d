"""Weights in prompts: what is one, what stays text, and what is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends._weights import Piece, is_weighted, pieces_of, plain
from router.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("", [("", 1)]),
        ("a red circle", [("a red circle", 1)]),
        ("a (red:1.3) circle", [("a ", 1), ("red", 1.3), (" circle", 1)]),
        ("(red circle: .5 )", [("red circle", 0.5)]),
        ("(a (very:1.5) red:2)", [("a ", 2), ("very", 3), (" red", 2)]),
        ("(red:0)", [("red", 0)]),
        ("(red:1)", [("red", 1)]),
        ("a (red) circle", [("a (red) circle", 1)]),
        ("((red:1.3))", [("(", 1), ("red", 1.3), (")", 1)]),
        (r"a \(red:1.3\) circle", [("a (red:1.3) circle", 1)]),
        (r"(a \) smile:1.2)", [("a ) smile", 1.2)]),
        (r"a \\ b \n", [("a \\ b \\n", 1)]),
        ("at 16:9) and (open", [("at 16:9) and (open", 1)]),
        ("(red:1.3", [("(red:1.3", 1)]),
        ("(red:bold)", [("(red:bold)", 1)]),
        ("(red:1.3)(blue:1.3)", [("redblue", 1.3)]),
        ("( :0.5) red", [("  red", 1)]),
    ],
)
def test_only_text_and_number_in_parentheses_are_a_weight(
    prompt: str, pieces: list[tuple[str, float]]
) -> None:
    found = pieces_of(prompt, "prompt")
    assert [(piece.text, pytest.approx(piece.weight)) for piece in found] == pieces


@pytest.mark.parametrize("prompt", ["(red:-1)", "(red:4.1)", "(a format of 16:9)"])
def test_a_weight_that_is_none_is_refused_with_the_cure(prompt: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"weights are 0 to 4; write \\\( where") as caught:
        pieces_of(prompt, "negative_prompt")
    assert caught.value.param == "negative_prompt"


@given(st.text())
def test_escaped_text_comes_out_as_it_went_in(text: str) -> None:
    escaped = "".join(f"\\{letter}" if letter in "()\\" else letter for letter in text)
    found = pieces_of(escaped, "prompt")
    assert (plain(found), is_weighted(found)) == (text, False)


@given(st.text(alphabet="ab ():\\.015"))
def test_no_text_is_lost_and_neighbours_differ(text: str) -> None:
    try:
        found = pieces_of(text, "prompt")
    except InvalidRequestError:
        return
    letters = [letter for letter in text if letter in "ab"]
    assert [letter for letter in plain(found) if letter in "ab"] == letters
    assert all(a.weight != b.weight for a, b in itertools.pairwise(found))
    assert Piece("") not in found[1:]
