"""The README's blocks do what they say: Python runs, commands succeed, the configuration is read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from router import default, images
from router.cli import app
from router.config import RouterConfig
from router.settings import load_config
from router.variables import SETS, variable
from tests.services import serving

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, and an end for the default router."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    default.close()


@pytest.mark.parametrize("block", blocks("python"))
def test_python_runs(block: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    assert "shapes/diffusers" in capsys.readouterr().out
    assert (folder / "circle.png").exists() == ("circle.png" in block)


def test_openais_client_gets_its_pictures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("py")
    with serving(folder) as service:
        exec(compile(block.replace("http://localhost:8000", service.url), "README.md", "exec"), {})
    assert "2 pictures" in capsys.readouterr().out


def test_the_curl_command_asks_for_a_picture(folder: Path) -> None:
    """Sent by another client: not every machine has curl."""
    (command,) = [part for block in blocks("sh") for part in block.split("\n\n") if part.startswith("curl ")]
    words = shlex.split(command.replace("\\\n", " "))
    kind, _, value = words[words.index("-H") + 1].partition(": ")
    path = words[2].removeprefix("localhost:8000")
    with serving(folder) as service:
        reply = service.http.post(path, content=words[words.index("-d") + 1], headers={kind: value})
    assert images.decode(reply.content).width


@pytest.mark.parametrize(
    "command", [line for block in blocks("console") for line in block.splitlines() if "triptych " in line]
)
def test_commands_succeed(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPTYCH_BACKENDS", "fake")
    done = CliRunner().invoke(app, shlex.split(command)[1:])
    assert done.exit_code == 0, done.output
    assert (folder / "pictures.png").exists() == ("pictures.png" in command)


def test_the_configuration_is_read(folder: Path) -> None:
    (block,) = blocks("toml")
    (folder / "triptych.toml").write_text(block)
    config = load_config(environ={}, directory=folder)
    assert [instance.name for instance in config.models[0].instances] == ["shapes/diffusers", "shapes/fake"]


def test_every_variable_and_key_is_in_the_reference() -> None:
    rows = "\n".join(line for line in REFERENCE.splitlines() if line.startswith("| "))
    assert [name for name in SETS if f"`{variable(name)}`" not in rows] == []
    sections = set(RouterConfig.model_fields) - {
        "models",
        "sources",
        "legacy",
        "limits",
        "breaker",
        "device_memory",
    }
    keys = {
        *sections,
        *(f"limits.{key}" for key in type(RouterConfig.model_fields["limits"].default).model_fields),
    }
    assert [key for key in keys if f"| `{key}` |" not in rows] == []


def test_local_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        links = re.findall(r"\]\((?!https?:)([^)#\s]+)\)", page.read_text(encoding="utf-8"))
        assert [link for link in links if not (page.parent / link).exists()] == [], page.name
    assert len(pages) > 10
