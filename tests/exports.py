"""The fixture `exports`: the miniatures as ONNX, each exported once in a session and only if asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

Exports: TypeAlias = Callable[[str], Path]


@pytest.fixture(scope="session")
def exports(miniatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """`exports("sdxl")` is the folder of that miniature's export; `miniature("sdxl", miniatures)` its source.

    64x64, float32, rows 2 and 8 (FLUX 1 and 4), text lengths as the pipelines ask for by themselves.
    Never write into it: copy it first.
    """
    from export.families import family_of
    from export.folder import write_folder
    from export.profiles import profiles_of
    from export.settings import ExportSettings
    from tests.miniatures import miniature

    made: dict[str, Path] = {}

    def folder_of(family: str) -> Path:
        if family not in made:
            source = miniature(family, miniatures)  # type: ignore[arg-type]
            folder = tmp_path_factory.mktemp("exports") / family
            folder.mkdir()
            profiles = profiles_of(family_of(source), ["64x64"])
            write_folder(source, folder, ExportSettings(profiles=profiles))
            made[family] = folder
        return made[family]

    return folder_of
