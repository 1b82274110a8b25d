"""Weights in prompts: `a (red:1.3) circle` is three pieces, one of which counts for more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from router.errors import InvalidRequestError

MAX_WEIGHT = 4.0
"""Far beyond what makes pictures: models fall apart from about 1.6 on."""

_PART = re.compile(
    r"\\(?P<literal>[()\\])"
    r"|(?P<open>\()"
    r"|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)"
    r"|(?P<close>\))"
    r"|(?P<text>[^\\():]+|.)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    weight: float = 1.0


def pieces_of(prompt: str, param: str) -> list[Piece]:
    r"""The prompt as pieces, neighbours of different weight.

    `(text:number)` is text of that weight; inside another it is multiplied. Every other parenthesis is
    text, and so is one behind a backslash: `\(`, `\)`; `\\` is a backslash. Raises `InvalidRequestError`
    with `param` for a weight that is none.
    """
    groups: list[list[Piece]] = [[]]
    """The innermost open parenthesis last."""
    for part in _PART.finditer(prompt):
        if part["open"]:
            groups.append([])
        elif part["weight"] and len(groups) > 1:
            weight = _checked(float(part["weight"]), param)
            inner = groups.pop()
            groups[-1] += [Piece(piece.text, piece.weight * weight) for piece in inner]
        elif part["close"] and len(groups) > 1:
            inner = groups.pop()
            groups[-1] += [Piece("("), *inner, Piece(")")]
        else:
            groups[-1].append(Piece(part["literal"] or part["text"] or part[0]))
    while len(groups) > 1:  # never closed: text
        inner = groups.pop()
        groups[-1] += [Piece("("), *inner]
    return _merged(groups[0])


def plain(pieces: Sequence[Piece]) -> str:
    """The text without its weights."""
    return "".join(piece.text for piece in pieces)


def is_weighted(pieces: Sequence[Piece]) -> bool:
    return any(piece.weight != 1 for piece in pieces)


def _checked(weight: float, param: str) -> float:
    if 0 <= weight <= MAX_WEIGHT:
        return weight
    raise InvalidRequestError(
        rf"`{param}` has the weight {weight:g}, but weights are 0 to {MAX_WEIGHT:g}; write \( where"
        " a parenthesis is meant.",
        param=param,
    )


def _merged(pieces: Sequence[Piece]) -> list[Piece]:
    """Neighbours of one weight as one; text without a word weighs nothing of its own."""
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if last is not None and (last.weight == piece.weight or not piece.text.strip()):
            merged[-1] = Piece(last.text + piece.text, last.weight)
        elif piece.text:
            merged.append(piece if piece.text.strip() else Piece(piece.text))
    return merged or [Piece("")]
