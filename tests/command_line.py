"""The command line in a folder of its own, with a configuration of one fake instance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from router import cli
from router.types import RawImage

DEMO = '[[models.demo.instances]]\nbackend = "fake"\n'
PATH = str(Path(cli.__file__).parents[2])
PICTURE = RawImage(64, 64, bytes(64 * 64 * 3))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a configuration of one fake instance."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    configure(tmp_path, DEMO)
    return tmp_path


def configure(folder: Path, text: str) -> None:
    (folder / "triptych.toml").write_text(text)


def triptych(*arguments: str) -> Result:
    """Run it in this process; whatever happens, no traceback reaches the user."""
    result = CliRunner().invoke(cli.app, arguments)
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def as_object(result: Result) -> dict[str, Any]:
    """All of stdout is one JSON object."""
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def pictures_in(folder: Path) -> list[str]:
    """Names of all files but the configuration."""
    return sorted(path.name for path in folder.iterdir() if path.name != "triptych.toml")
