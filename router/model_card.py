"""Model card: the licence that a model's README.md names in its front matter, as model hubs have them."""

from __future__ import annotations

import re
from pathlib import Path

_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)^---", flags=re.DOTALL | re.MULTILINE)
_READ_CHARACTERS = 100_000


def licence_of(folder: Path) -> str:
    """The licence in the folder's card, or the file to read it in; empty where nothing tells.

    `license: other` goes with a `license_name`.
    """
    named = _named(folder / "README.md")
    if named:
        return named
    files = sorted(file.name for file in folder.glob("LICENSE*"))
    return f"see {files[0]}" if files else ""


def _named(card: Path) -> str:
    try:
        with card.open(encoding="utf-8", errors="replace") as stream:
            found = _FRONT_MATTER.match(stream.read(_READ_CHARACTERS))
    except OSError:
        return ""
    text = found[1] if found else ""
    licence = _value(text, "license")
    return _value(text, "license_name") or licence if licence in ("", "other") else licence


def _value(text: str, key: str) -> str:
    """Of a scalar of one line: all that the cards of hubs have here."""
    found = re.search(rf"^{key}:[ \t]*(.+)$", text, flags=re.MULTILINE)
    return found[1].strip().strip("\"'") if found else ""
