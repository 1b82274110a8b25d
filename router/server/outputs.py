"""Outputs: the pictures and their facts on disk, under ids that cannot be guessed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.errors import ConfigError
from router.images import FORMATS, Format
from router.server.links import WallClock

MEDIA_TYPES: Mapping[Format, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

_ID_BYTES = 16
_NAME = re.compile(r"([A-Za-z0-9_-]{22})\.(png|jpeg|webp)")
_UNFINISHED = ".part"


@dataclass(frozen=True, slots=True)
class Output:
    """One kept picture. Its paths are for links; where it lies on disk is the folder's affair."""

    id: str
    format: Format
    bytes: int
    """Picture, facts and latents together."""
    made_at: float
    """Seconds since the epoch."""
    has_latents: bool = False

    @property
    def image_path(self) -> str:
        return f"/outputs/images/{self.id}.{self.format}"

    @property
    def meta_path(self) -> str:
        return f"/outputs/metadata/{self.id}.json"

    @property
    def latents_path(self) -> str | None:
        return f"/outputs/latents/{self.id}.safetensors" if self.has_latents else None


class Outputs:
    """A folder that never grows beyond its limits. Ids from a request are only looked up, never opened."""

    def __init__(
        self, folder: Path, most_bytes: int, most_age_s: float, clock: WallClock = time.time
    ) -> None:
        self._images, self._metadata = folder / "images", folder / "metadata"
        self._latents = folder / "latents"
        self._most_bytes = most_bytes
        self._most_age_s = most_age_s
        self._clock = clock
        self._kept: dict[str, Output] = {}
        """Oldest first."""
        self._bytes = 0

    def open(self) -> None:
        """Make the folder and see what is in it. Blocks. Raises `ConfigError` where it cannot be written."""
        try:
            for folder in (self._images, self._metadata, self._latents):
                folder.mkdir(parents=True, exist_ok=True)
                for rest in folder.glob(f"*{_UNFINISHED}"):  # of a process that was killed
                    rest.unlink(missing_ok=True)
            found = sorted(self._found(), key=lambda output: output.made_at)
        except OSError as exc:
            raise ConfigError(
                f"`server.outputs` {self._images.parent} cannot be used ({exc.strerror}); correct it."
            ) from exc
        for output in found:
            self._add(output)
        _remove(self._take_excess())

    async def keep(
        self, data: bytes, format: Format, meta: Mapping[str, Any], latents: bytes | None = None
    ) -> Output:
        """Write a picture, its facts and its latents, all or nothing; what is too old or too much goes."""
        id = secrets.token_urlsafe(_ID_BYTES)
        text = json.dumps({"id": id, **meta}, ensure_ascii=False, indent=1).encode("utf-8", "replace")
        size = len(data) + len(text) + len(latents or b"")
        output = Output(id, format, size, self._clock(), latents is not None)
        files = {self._meta_file(output): text, self._image_file(output): data}
        if latents is not None:
            files = {self._latents_file(output): latents, **files}
        await asyncio.to_thread(_write, files)
        self._add(output)
        if excess := self._take_excess():
            await asyncio.to_thread(_remove, excess)
        return output

    def find(self, id: str) -> Output | None:
        """The picture of that id, unless it was removed or is too old."""
        output = self._kept.get(id)
        return None if output is None or self._is_old(output) else output

    async def image(self, output: Output) -> bytes | None:
        """The file's bytes; `None` where it was removed meanwhile."""
        return await asyncio.to_thread(_read, self._image_file(output))

    async def meta(self, output: Output) -> bytes | None:
        return await asyncio.to_thread(_read, self._meta_file(output))

    async def latents(self, output: Output) -> bytes | None:
        return await asyncio.to_thread(_read, self._latents_file(output))

    def _found(self) -> Iterable[Output]:
        for path in self._images.iterdir():
            if matched := _NAME.fullmatch(path.name):
                facts = path.stat()
                meta = self._metadata / f"{matched[1]}.json"
                latents = self._latents / f"{matched[1]}.safetensors"
                size = facts.st_size + sum(file.stat().st_size for file in (meta, latents) if file.exists())
                format = next(known for known in FORMATS if known == matched[2])
                yield Output(matched[1], format, size, facts.st_mtime, latents.exists())

    def _add(self, output: Output) -> None:
        self._kept[output.id] = output
        self._bytes += output.bytes

    def _take_excess(self) -> list[Path]:
        """Forget what is too old or too much; the files to remove."""
        files: list[Path] = []
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if self._bytes <= self._most_bytes and not self._is_old(oldest):
                break
            del self._kept[oldest.id]
            self._bytes -= oldest.bytes
            files += [self._image_file(oldest), self._meta_file(oldest), self._latents_file(oldest)]
        return files

    def _is_old(self, output: Output) -> bool:
        return self._clock() - output.made_at > self._most_age_s

    def _image_file(self, output: Output) -> Path:
        return self._images / f"{output.id}.{output.format}"

    def _meta_file(self, output: Output) -> Path:
        return self._metadata / f"{output.id}.json"

    def _latents_file(self, output: Output) -> Path:
        return self._latents / f"{output.id}.safetensors"


def _write(files: Mapping[Path, bytes]) -> None:
    """Each appears whole or not at all; the picture last, as it is what is looked for."""
    for path, data in files.items():
        unfinished = path.with_name(path.name + _UNFINISHED)
        unfinished.write_bytes(data)
        os.replace(unfinished, path)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _remove(files: Iterable[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)
