"""ModelFiles: whether the files of an instance's source are still those that were there before."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

_MOST_FILES = 10_000

Stand: TypeAlias = Mapping[str, tuple[int, int]]
"""File, by its path in the source -> bytes and time of its last change, in nanoseconds."""


class ModelFiles:
    """Size and time of each file, without reading any. Nothing is watched: one looks where it matters."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._seen: Stand | None = None

    @classmethod
    def of(cls, source: str) -> ModelFiles | None:
        """`None` for what is no place on this machine: a hub id, a server, a model of the package."""
        place = Path(source)
        return cls(place) if place.is_absolute() else None

    async def begin(self) -> None:
        """Look for the first time."""
        if self._seen is None:
            await self.look()

    async def look(self) -> str:
        """What has changed since the last look, as `unet/config.json is missing`; empty if nothing has."""
        now = await asyncio.to_thread(_stand_of, self._place)
        before, self._seen = self._seen, now
        return "" if before is None else _difference(before, now)


def _stand_of(place: Path) -> Stand:
    if place.is_dir():
        return dict(sorted(_files_in(place)))
    return {place.name: _mark(place)} if place.exists() else {}


def _files_in(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for count, path in enumerate(folder.rglob("*")):
        if count == _MOST_FILES:
            return
        if path.is_file():
            yield str(path.relative_to(folder)), _mark(path)


def _mark(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:  # gone since it was listed
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _difference(before: Stand, now: Stand) -> str:
    for name in before:
        if name not in now:
            return f"{name} is missing"
    changed = next((name for name, mark in now.items() if before.get(name) != mark), "")
    return f"{changed} {'has changed' if changed in before else 'is new'}" if changed else ""
