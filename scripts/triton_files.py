"""The files of a Triton server: found, and laid out so that its Python models run in this environment."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STUB = "triton_python_backend_stub"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class NoServerError(Exception):
    """There is no server that could be started; the sentence names the cure."""


@dataclass(frozen=True)
class ServerFiles:
    """An installed server: `root` has `bin/tritonserver` and `backends`."""

    root: Path
    libraries: Path | None = None
    """What the wheel brings for the server alone."""

    @property
    def binary(self) -> Path:
        return self.root / "bin" / "tritonserver"

    def environment(self) -> dict[str, str]:
        """In which the stub finds, by `python3` on the path, the environment that runs this.

        Idle threads of PyTorch would spin on the cores that Triton needs to hand pictures on: passive, a
        response is sent in a third of the time.
        """
        libraries = [_python_library(), self.libraries, os.environ.get("LD_LIBRARY_PATH")]
        return {
            "OMP_WAIT_POLICY": "PASSIVE",
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "LD_LIBRARY_PATH": ":".join(str(folder) for folder in libraries if folder),
        }

    def backend_folder(self, folder: Path) -> Path:
        """`folder`, with links to all backends; the stub of the Python backend is that of this Python.

        Raises `NoServerError` where the server has none for it.
        """
        for backend in (self.root / "backends").iterdir():
            (folder / backend.name).mkdir()
            for file in backend.iterdir():
                (folder / backend.name / file.name).symlink_to(file)
        stub = folder / "python" / STUB
        built = self.root / "python_backend_stubs" / _PYTHON / STUB
        if built.is_file():
            stub.unlink(missing_ok=True)
            stub.symlink_to(built)
        if not stub.exists():
            raise NoServerError(
                f"{self.root} has no stub for Python {_PYTHON}; use a Python that it has one for."
            )
        return folder


def find_server(named: str | None = None) -> ServerFiles:
    """The server at `named`, a folder or the binary, or else the wheel's in .venv-triton, or on the path."""
    if named:
        path = Path(named).resolve()
        found = ServerFiles(path.parents[1] if path.is_file() else path)
        if not found.binary.is_file():
            raise NoServerError(f"{named} has no bin/tritonserver; name the folder of a Triton server.")
        return found
    installed = [*_in_the_wheel(), *_on_the_path()]
    if not installed:
        raise NoServerError(
            "There is no tritonserver, neither in .venv-triton, where `scripts/triton_server` installs one,"
            " nor on the path; name one with `--server`."
        )
    return installed[0]


def _in_the_wheel() -> Iterator[ServerFiles]:
    for site in (ROOT / ".venv-triton").glob("lib/python*/site-packages"):
        found = ServerFiles(site / "pytriton" / "tritonserver", site / "nvidia_pytriton.libs")
        if found.binary.is_file():
            yield found


def _on_the_path() -> Iterator[ServerFiles]:
    binary = shutil.which("tritonserver")
    if binary:
        yield ServerFiles(Path(binary).resolve().parents[1])


def _python_library() -> str | None:
    """Folder of this Python's shared library; a system's own is found without."""
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")
    return folder if folder and name and Path(folder, name).is_file() else None
