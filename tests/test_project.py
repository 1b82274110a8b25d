"""The house rules that no single module can hold: floors, a light door, bounds, and the set-up scripts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from blockbuster import BlockingError
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
PACKAGES = ("router", "backends", "export")
DATA = {"model_repository"}
LISTED = set(PROJECT["tool"]["setuptools"]["packages"])
HEAVY = "torch numpy PIL diffusers transformers onnxruntime tritonclient typer rich backends export"


# --- floors


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the three packages and their contracts, to plant violations in."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("shapes_model"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(house: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    return subprocess.run(command, cwd=house, capture_output=True, text=True, check=False)


def test_the_floors_hold(house: Path) -> None:
    done = lint_imports(house)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("router/errors.py", "from router.types import RawImage", "The floors"),
        ("router/routing.py", "from router import pool", "The floors"),
        ("router/novelty.py", "", "The floors"),
        ("router/lane.py", "from router import types", "The lane knows errors"),
        ("router/hub.py", "import pydantic", "The lane knows errors"),
        ("router/routing.py", "import torch", "The router knows no backend"),
        ("router/memory.py", "def lazily():\n    import numpy", "The router knows no backend"),
        ("router/pool.py", "from backends import fake", "The router knows no backend"),
        ("router/cli/__init__.py", "import export", "The router knows no backend"),
        ("router/cli/__init__.py", "from PIL import Image", "PIL is imported by"),
        ("backends/fake.py", "import export", "Backends and export"),
        ("export/__init__.py", "from backends import fake", "Backends and export"),
    ],
)
def test_a_planted_violation_breaks_its_contract(house: Path, file: str, line: str, contract: str) -> None:
    with (house / file).open("a") as stream:
        stream.write(f"\n\n{line}\n")
    done = lint_imports(house)
    assert done.returncode != 0
    broken = re.findall(r"^(.+) BROKEN", done.stdout, flags=re.MULTILINE)
    assert any(name.startswith(contract) for name in broken)


def test_the_door_is_light() -> None:
    code = f"import sys, router; print(*sorted(set({HEAVY.split()!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_no_folder_hides_the_triton_compiler() -> None:
    """`torch` takes a folder called `triton` on its path for the compiler and dies."""
    for package in (*PACKAGES, "tests", "scripts", "model_repository"):
        assert not [path for path in (ROOT / package).rglob("triton") if path.is_dir()]


async def test_our_code_may_not_block_the_loop() -> None:
    """The guard in conftest.py sees what runs in a file of ours."""
    code = compile("import time\ntime.sleep(0)", ROOT / "router/novelty.py", "exec")
    with pytest.raises(BlockingError, match=r"time\.sleep"):
        exec(code, {})


# --- distribution


def requirements(extra: str) -> list[Requirement]:
    return [Requirement(text) for text in EXTRAS[extra]]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    exact = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all(one.url is None and str(one.specifier).startswith("==") for one in exact)
    return {one.name.lower().replace("_", "-"): str(one.specifier)[2:] for one in exact}


def test_listed_packages_are_there_and_typed() -> None:
    for package in LISTED - DATA:
        assert (ROOT / package.replace(".", "/") / "__init__.py").is_file()
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)


def test_every_package_of_ours_is_listed() -> None:
    found = {path.parent.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert {".".join(path.parts) for path in found} == LISTED - DATA


def test_the_promised_extras_are_there() -> None:
    assert {"diffusers", "onnx", "onnx-gpu", "triton", "tensorrt", "server", "all"} <= set(EXTRAS)


def test_the_tested_set_lies_within_the_bounds() -> None:
    exact = pinned()
    ours = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    for one in ours + requirements("diffusers") + requirements("test") + requirements("dev"):
        if one.name != "triptych":
            assert one.specifier.contains(exact[one.name]), one


@pytest.mark.parametrize("extra", ["diffusers", "triton", "tensorrt"])
@pytest.mark.parametrize("version", ["1.26.4", "2.4.6"])
def test_the_bounds_admit_both_numpy_generations(extra: str, version: str) -> None:
    (numpy,) = [one for one in requirements(extra) if one.name == "numpy"]
    assert numpy.specifier.contains(version)


def test_everything_together_needs_no_gpu() -> None:
    (everything,) = requirements("all")
    assert everything.extras >= {"diffusers", "export", "onnx", "openvino", "server", "triton"}
    assert not everything.extras & {"onnx-gpu", "tensorrt"}


# --- set-up scripts


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A project folder whose .venv holds a Python that only notes how it was called."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("scripts/_venv", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n')
    python.chmod(0o755)
    return tmp_path


def installs(fresh: Path, extras: str) -> list[str]:
    """The pip commands that `ensure_installed` runs."""
    calls = fresh / "calls"
    calls.write_text("")
    script = f"source scripts/_venv; ensure_installed {extras}"
    subprocess.run(["bash", "-c", script], cwd=fresh, check=True, capture_output=True)
    return [line for line in calls.read_text().splitlines() if " install " in line]


def test_set_up_installs_the_tested_set_once(fresh: Path) -> None:
    (command,) = installs(fresh, "dev")
    assert command.endswith("--constraint constraints.txt --editable .[dev]")
    assert installs(fresh, "dev") == []
    assert installs(fresh, "diffusers dev") == []
    assert len(installs(fresh, "diffusers")) == 1


def test_the_tests_install_spandrel_by_itself_once(fresh: Path) -> None:
    installs(fresh, "dev")
    (command,) = installs(fresh, "dev; ensure_spandrel")
    assert "--constraint constraints.txt --no-deps spandrel einops" in command
    assert installs(fresh, "dev; ensure_spandrel") == []


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_set_up_installs_again_when_the_needs_change(fresh: Path, name: str) -> None:
    installs(fresh, "dev")
    with (fresh / name).open("a") as stream:
        stream.write("# changed\n")
    assert len(installs(fresh, "dev")) == 1


@pytest.mark.parametrize("name", ["scripts/demo", "scripts/test", "scripts/lint", ".ci/run"])
def test_the_commands_can_be_run(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o111
    subprocess.run(["bash", "-n", ROOT / name], check=True)
