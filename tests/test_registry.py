"""The registry: names and import strings become factories, what is missing becomes its cure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from router.errors import BackendUnavailableError, ConfigError
from router.registry import BACKENDS, BackendEntry, missing, resolve
from tests.upscalers import import_spandrel


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package on the path to put modules into."""
    package = tmp_path / "painted_house"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("painted_house")]:
        monkeypatch.delitem(sys.modules, name)
    return package


@pytest.mark.parametrize("name", BACKENDS)
def test_every_listed_backend_is_there(name: str) -> None:
    assert missing(name) is None
    if name == "spandrel":
        import_spandrel()
    assert callable(resolve(name))


def test_every_listed_backend_says_how_its_libraries_are_installed() -> None:
    for entry in BACKENDS.values():
        assert not entry.requires or entry.install.startswith("pip install 'triptych[")


def test_an_unknown_name_lists_the_known_ones() -> None:
    listed = r"'difusers'; did you mean 'diffusers'\?.*: diffusers, onnxruntime, triton, .*, fake, and"
    with pytest.raises(ConfigError, match=listed):
        resolve("difusers")


@pytest.mark.parametrize("name", ["", ":", "a:", ":b", "a b:C", "a:b:C", "a..b:C"])
def test_what_is_no_import_string_is_an_unknown_name(name: str) -> None:
    with pytest.raises(ConfigError, match="There is no backend"):
        resolve(name)


def test_a_missing_library_becomes_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = BackendEntry("backends.fake:FakeBackend", ("json", "no_such_library"), "pip install 'it'")
    monkeypatch.setitem(BACKENDS, "wanting", entry)
    sentence = "Backend 'wanting' needs no_such_library; pip install 'it'."
    assert missing("wanting") == sentence
    with pytest.raises(BackendUnavailableError) as caught:
        resolve("wanting")
    assert str(caught.value) == sentence


def test_missing_imports_nothing(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (house / "__init__.py").write_text("raise SystemError('imported')")
    monkeypatch.setitem(BACKENDS, "wanting", BackendEntry("painted_house:Painter", ("painted_house",)))
    assert missing("wanting") is None


def test_ones_own_backend_is_found_by_its_import_string(house: Path) -> None:
    (house / "paint.py").write_text("class Painter: pass")
    factory = resolve("painted_house.paint:Painter")
    assert getattr(factory, "__name__", "") == "Painter"


@pytest.mark.parametrize(
    ("name", "absent"), [("no_such_house.paint:Painter", "no_such_house"),
                         ("painted_house.paint:Painter", "painted_house.paint")],
)  # fmt: skip
def test_a_module_that_is_not_there_is_a_mistake_in_the_configuration(
    house: Path, name: str, absent: str
) -> None:
    with pytest.raises(ConfigError, match=f"there is no module '{absent}'"):
        resolve(name)


def test_a_class_that_is_not_there_is_a_mistake_in_the_configuration(house: Path) -> None:
    (house / "paint.py").touch()
    with pytest.raises(ConfigError, match=r"module painted_house\.paint has no class 'Painter'"):
        resolve("painted_house.paint:Painter")


def test_a_module_that_lacks_what_it_imports_is_told_apart(house: Path) -> None:
    (house / "paint.py").write_text("import no_such_brush")
    with pytest.raises(BackendUnavailableError, match="needs no_such_brush, which is not installed"):
        resolve("painted_house.paint:Painter")


@pytest.mark.parametrize(
    "line", ["from json import no_such_name", "raise OSError('libpaint.so: no such file')"]
)
def test_a_broken_library_is_said_without_its_paths(house: Path, line: str) -> None:
    (house / "paint.py").write_text(line)
    with pytest.raises(BackendUnavailableError, match=r"its libraries are broken; install them again\.$"):
        resolve("painted_house.paint:Painter")
