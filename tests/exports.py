"""The fixture `exports`: the miniatures as ONNX, exported only if asked for and kept from run to run."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    from tests.miniatures import Family

Exports: TypeAlias = "Callable[[Family], Path]"

_ROOT = Path(__file__).parents[1]
_MADE_OF = (
    "export/*.py",
    "router/manifest.py",
    "router/model_folder.py",
    "tests/miniatures.py",
    "tests/exports.py",
)
_LIBRARIES = ("torch", "diffusers", "transformers", "onnx", "onnxscript")


@pytest.fixture(scope="session")
def exports(miniatures: Path, pytestconfig: pytest.Config) -> Exports:
    """`exports("sdxl")` is the folder of that miniature's export; `miniature("sdxl", miniatures)` its source.

    64x64, float32, rows 2 and 8 (FLUX 1 and 4), text lengths as the pipelines ask for by themselves, not
    compared with the source: its `parity` is `None`. Never write into it: copy it first. Kept in pytest's
    cache for as long as the code that makes it stays the same; `pytest --cache-clear` lets it go.
    """
    kept = pytestconfig.cache.mkdir("exports") / _state()  # type: ignore[union-attr]

    def folder_of(family: Family) -> Path:
        if not (kept / family).exists():
            _make(family, miniatures, kept)
        return kept / family

    return folder_of


def _make(family: Family, miniatures: Path, kept: Path) -> None:
    from export.families import family_of
    from export.folder import write_folder
    from export.profiles import profiles_of
    from export.settings import ExportSettings
    from tests.miniatures import miniature

    source = miniature(family, miniatures)
    kept.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept) as unfinished:
        folder = Path(unfinished) / family
        folder.mkdir()
        write_folder(source, folder, ExportSettings(profiles=profiles_of(family_of(source), ["64x64"])))
        if not (kept / family).exists():  # another run may have been faster
            folder.rename(kept / family)


def _state() -> str:
    """What the exports follow from: the code that makes them, and the libraries."""
    state = hashlib.sha256(repr([version(name) for name in _LIBRARIES]).encode())
    for file in sorted(file for pattern in _MADE_OF for file in _ROOT.glob(pattern)):
        state.update(file.read_bytes())
    return state.hexdigest()[:16]
