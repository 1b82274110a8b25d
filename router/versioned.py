"""VersionedFile: a JSON file that lies in a folder of ours, of a version and with a form that are checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from router.errors import LoadError
from router.findings import first_finding

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class VersionedFile:
    """`schema_version` in it is `version` or less; a newer one was written by a newer Triptych."""

    name: str
    version: int
    absent: str
    """What to do where the folder has none."""
    again: str
    """What to do where it is damaged, or of another version."""

    def read(self, form: type[M], folder: Path) -> M:
        """Read and check what it says. Raises `LoadError`."""
        raw = self._json(folder)
        version = raw.get("schema_version", self.version) if isinstance(raw, dict) else self.version
        if isinstance(version, int) and version > self.version:
            raise LoadError(
                f"{self.name} of {folder.name!r} has schema_version {version}, this Triptych reads"
                f" {self.version}; update Triptych or {self.again}."
            )
        try:
            return form.model_validate(raw)
        except ValidationError as exc:
            raise LoadError(f"{self.name} of {folder.name!r}: {first_finding(exc, form)}") from exc

    def write(self, content: BaseModel, folder: Path) -> None:
        (folder / self.name).write_text(content.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def _json(self, folder: Path) -> Any:
        try:
            return json.loads((folder / self.name).read_text(encoding="utf-8"))
        except OSError as exc:
            raise LoadError(f"{folder.name!r} has no readable {self.name}; {self.absent}.") from exc
        except ValueError as exc:
            raise LoadError(f"{self.name} of {folder.name!r} is not JSON; {self.again}.") from exc
