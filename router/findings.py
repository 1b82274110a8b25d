"""Findings: what pydantic found wrong with a file or the environment, as one sentence with the cure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MAX_SHOWN_CHARACTERS = 60
_SAID = {
    "dict_type": "it must be a table",
    "model_type": "it must be a table",
    "too_short": "it must not be empty",
    "tuple_type": "it must be a list",
}
"""What pydantic says of Python types, in the words of TOML."""


def first_finding(exc: ValidationError, form: type[BaseModel], spell: Callable[[str], str] = str) -> str:
    """The first finding as the rest of a sentence, for `f"{file}: {...}"`; the others are counted.

    `form` is the model that was validated, `spell` turns a dotted key into the user's word for it.
    """
    first, *others = sorted(_told(exc), key=lambda error: error["type"] != "extra_forbidden")
    more = f" ({len(others)} more of its keys are wrong too.)" if others else ""
    return _finding(first, form, spell) + more


def did_you_mean(word: str, known: Iterable[str], spell: Callable[[str], str] = str) -> str:
    """The end of a sentence about an unknown word: the nearest known one, or all of them."""
    names = {name.lower(): spell(name) for name in known}
    nearest = difflib.get_close_matches(word.lower(), names, n=1)
    if nearest:
        return f"did you mean {names[nearest[0]]}?"
    return f"the known ones are: {', '.join(names.values()) or 'none'}."


def _finding(error: ErrorDetails, form: type[BaseModel], spell: Callable[[str], str]) -> str:
    key = spell(_dotted(error["loc"]))
    if error["type"] == "missing":
        return f"`{key}` is missing; add it."
    if error["type"] == "extra_forbidden":
        return f"there is no key `{key}`; {did_you_mean(str(error['loc'][-1]), _keys_at(form, error['loc']))}"
    said = _SAID.get(error["type"], error["msg"]).removeprefix("Value error, ")
    said = f"{said[:1].lower()}{said[1:]}."
    return f"`{key}` is {_shown(error['input'])}: {said}" if key else said


def _told(exc: ValidationError) -> list[ErrorDetails]:
    """Without lists called too short only because what they hold is wrong.

    The unknown key comes first: a typo is why another one is missing.
    """
    found = exc.errors(include_url=False)
    places = [error["loc"] for error in found]
    return [
        error
        for error in found
        if error["type"] != "too_short"
        or not any(place != error["loc"] and place[: len(error["loc"])] == error["loc"] for place in places)
    ]


def _dotted(location: tuple[int | str, ...]) -> str:
    """`("models", "photo", "instances", 0)` as `models.photo.instances[0]`."""
    dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return dotted.removeprefix(".")


def _keys_at(form: Any, location: tuple[int | str, ...]) -> Iterable[str]:
    """The keys that are known where the unknown one stood."""
    for part in location[:-1]:
        if isinstance(form, type) and issubclass(form, BaseModel):
            form = _without_none(form.model_fields[str(part)].annotation)
        else:  # tuple[X, ...], dict[str, X]: on to X
            form = [element for element in get_args(form) if element not in (..., NoneType)][-1]
    return form.model_fields if isinstance(form, type) and issubclass(form, BaseModel) else ()


def _without_none(form: Any) -> Any:
    """`X` of `X | None`."""
    kept = [element for element in get_args(form) if element is not NoneType]
    return kept[0] if len(kept) == 1 and NoneType in get_args(form) else form


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."
