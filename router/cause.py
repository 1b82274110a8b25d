"""Cause: what a library raised, as it may be logged: without the prompt, and files by their names alone."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterable
from difflib import Match, SequenceMatcher
from pathlib import PurePath

from router.request_id import REQUEST_ID

_MOST_CHARACTERS = 300
_MOST_FRAMES = 8
_MOST_CAUSES = 4
_SHARED_CHARACTERS = 6
"""So many in a row that the prompt has too are taken for a part of it."""
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\\/\s'\":,;)\]]+){2,}")
_BLANK = "…"


def log_cause(
    log: logging.Logger, what: str, exc: BaseException, instance: str, secrets: Iterable[str | None] = ()
) -> None:
    """A warning with the id of the request in hand, what the library said, and where in the code.

    Nothing of `secrets`, the words of the request, is repeated.
    """
    facts = {
        "request_id": REQUEST_ID.get(),
        "instance": instance,
        "cause": _without(_said(exc), [secret for secret in secrets if secret]),
        "frames": _frames(exc),
    }
    log.warning(what, extra=facts)


def _said(exc: BaseException) -> str:
    """The exception and what it came from, outermost first, in one line."""
    said: list[str] = []
    cause: BaseException | None = exc
    while cause is not None and len(said) < _MOST_CAUSES:
        text = " ".join(_PATH.sub(_name, str(cause)).split())[:_MOST_CHARACTERS]
        said.append(f"{type(cause).__name__}: {text}" if text else type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    return "; from ".join(said)


def _frames(exc: BaseException) -> list[str]:
    """`file.py:12 function`, the innermost last."""
    frames = traceback.extract_tb(exc.__traceback__)[-_MOST_FRAMES:]
    return [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


def _name(path: re.Match[str]) -> str:
    return re.split(r"[\\/]", path[0])[-1]


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        words = secret.strip().lower()
        if len(words) < _SHARED_CHARACTERS:
            text = (
                re.sub(rf"(?<!\w){re.escape(words)}(?!\w)", _BLANK, text, flags=re.IGNORECASE)
                if words
                else text
            )
            continue
        while (shared := _shared(text.lower(), words)).size >= _SHARED_CHARACTERS:
            text = text[: shared.a] + _BLANK + text[shared.a + shared.size :]
    return text


def _shared(text: str, secret: str) -> Match:
    """The longest run of characters that both have."""
    return SequenceMatcher(None, text, secret, autojunk=False).find_longest_match()
