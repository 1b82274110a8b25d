"""MeasuredStore: what was measured of models on this machine, kept from one process to the next.

One JSON file in the cache folder. An entry holds under its conditions alone: the model (a fingerprint of
its tensors and configurations), the device, the dtype, the settings and the libraries' versions.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias

from pydantic import TypeAdapter

from router.footprint import Workspace

Choices: TypeAlias = tuple[tuple[str, str], ...]
"""What was compared -> the fastest way."""

log = logging.getLogger("router")

FILE_NAME = "measured.json"
_VERSION = 1
_MOST_ENTRIES = 256

Conditions: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a model under its conditions."""

    conditions: Mapping[str, str] = field(default_factory=dict)
    workspace: Workspace = field(default_factory=Workspace)
    load_s: float | None = None
    """Seconds that loading took."""
    choices: Mapping[str, str] = field(default_factory=dict)
    """What was compared at load -> the fastest way."""


@dataclass(frozen=True, slots=True)
class _File:
    version: int = _VERSION
    entries: tuple[Measured, ...] = ()
    """The newest last."""


_FORM = TypeAdapter(_File)


class MeasuredStore:
    """Read once, when first asked; written anew, as a whole, at each change. It never fails a request."""

    def __init__(self, folder: Path | None) -> None:
        """`None` keeps nothing beyond this process."""
        self._file = folder / FILE_NAME if folder else None
        self._entries: dict[Conditions, Measured] = {}
        self._reading: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._is_unwritten = False
        self.fault = ""
        """Why the file is not used, in a sentence without its path; empty if it is."""

    async def find(self, conditions: Conditions) -> Measured | None:
        """What is known under exactly these conditions; nothing is under none."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name="read what was measured")
        await asyncio.shield(self._reading)
        return self._entries.get(_key(conditions)) if conditions else None

    def keep(
        self, conditions: Conditions, workspace: Workspace, load_s: float | None, choices: Choices = ()
    ) -> None:
        """Have it written, soon. Call it on the event loop."""
        if not conditions:
            return
        self._entries.pop(_key(conditions), None)
        self._entries[_key(conditions)] = Measured(dict(conditions), workspace, load_s, dict(choices))
        self._is_unwritten = self._file is not None
        if self._is_unwritten and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._write(), name="write what was measured")

    async def close(self) -> None:
        """Wait until everything is written."""
        for task in (self._reading, self._writing):
            if task is not None:
                await task

    async def _read(self) -> None:
        if self._file is None:
            return
        try:
            entries, self.fault = await asyncio.to_thread(_entries_in, self._file), ""
        except (OSError, ValueError) as exc:
            self.fault = _sentence(exc)
            log.warning("%s", self.fault, extra={"file": str(self._file)})
        else:
            self._entries = entries | self._entries

    async def _write(self) -> None:
        assert self._file is not None
        while self._is_unwritten:
            self._is_unwritten = False
            try:
                written = await asyncio.to_thread(_write, self._file, dict(self._entries))
            except OSError as exc:
                self.fault = f"What was measured cannot be kept ({exc.strerror}); correct `memory.cache`."
                log.warning("%s", self.fault, extra={"file": str(self._file)})
            else:
                self._entries = written | self._entries  # what came meanwhile is newer


def default_cache(environ: Mapping[str, str]) -> Path | None:
    """`$XDG_CACHE_HOME/triptych`, else `~/.cache/triptych`; `None` where nobody is at home."""
    if base := environ.get("XDG_CACHE_HOME", ""):
        return Path(base) / "triptych"
    try:
        return Path.home() / ".cache" / "triptych"
    except RuntimeError:
        return None


def _sentence(exc: OSError | ValueError) -> str:
    why = exc.strerror if isinstance(exc, OSError) else "it is damaged, or of another version"
    return f"{FILE_NAME} in the cache folder is not used ({why}); formulas stand until it is written anew."


def _entries_in(file: Path) -> dict[Conditions, Measured]:
    """Raises `OSError`, `ValueError`. A file that is not there is an empty one."""
    try:
        content = _FORM.validate_json(file.read_bytes(), strict=False)
    except FileNotFoundError:
        return {}
    if content.version != _VERSION:
        raise ValueError(content.version)
    return {_key(entry.conditions.items()): entry for entry in content.entries}


def _key(conditions: Iterable[tuple[str, str]]) -> Conditions:
    return tuple(sorted(conditions))


def _write(file: Path, entries: dict[Conditions, Measured]) -> dict[Conditions, Measured]:
    """Beside what other processes have written meanwhile. A reader sees the old file or the new one."""
    with contextlib.suppress(OSError, ValueError):  # told when it was read
        entries = {**_entries_in(file), **entries}
    kept = dict(list(entries.items())[-_MOST_ENTRIES:])
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(asdict(_File(entries=tuple(kept.values()))), stream, indent=1)
        os.replace(unfinished, file)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
    return kept
