"""A real Triton server for tests: `triton_server`, started once a session, and `start_server` for more.

Each start costs ten seconds and more: share the one of the session, unless a test is about start or end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.exports import Exports

_ROOT = Path(__file__).parents[1]
_END_LIMIT_S = 60


@dataclass(frozen=True)
class TritonServer:
    """A server that is ready. `script` started it and cleans up after it."""

    grpc: str
    """`127.0.0.1:PORT`, as the other two."""
    http: str
    metrics: str
    pid: int
    """Of tritonserver itself."""
    script: subprocess.Popen[str]
    repository: Path
    log: Path


@contextlib.contextmanager
def start_server(repository: Path, log: Path, *options: str) -> Iterator[TritonServer]:
    """A server on free ports, with all models of the repository or those of `--load=NAME`.

    Fails the test with the server's log where it does not start, or leaves something behind at its end.
    """
    ports = ("--http-port=0", "--grpc-port=0", "--metrics-port=0")
    with log.open("a") as stream:
        script = subprocess.Popen(
            [sys.executable, "-m", "scripts.triton_start", repository, *ports, "--exit-s=10", *options],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        yield _ready(script, repository, log)
    finally:
        script.terminate()
        script.communicate(timeout=_END_LIMIT_S)
    assert left_of(script) == []


def left_of(script: subprocess.Popen[str]) -> list[str]:
    """Shared memory and stubs of the server that `script` started."""
    prefix = f"triptych_{script.pid}_"
    regions = [f"/dev/shm/{region.name}" for region in Path("/dev/shm").glob(f"{prefix}*")]
    return regions + [command for command in _commands() if prefix in command]


def _commands() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _ready(script: subprocess.Popen[str], repository: Path, log: Path) -> TritonServer:
    assert script.stdout is not None
    word, *found = script.stdout.readline().split() or [""]
    assert word == "ready", f"no Triton server:\n{log.read_text()[-3000:]}"
    facts = dict(each.split("=") for each in found)
    places = {name: facts[name] for name in ("grpc", "http", "metrics")}
    return TritonServer(**places, pid=int(facts["pid"]), script=script, repository=repository, log=log)


@pytest.fixture(scope="session")
def triton_repository(exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature `sd15` as three kinds of models. Never write into it.

    `sd15` runs its graphs itself, `sd15-bls` by the component models `sd15-bls_unet` and so on.
    """
    from export.to_triton import TritonSettings, to_triton

    folder = tmp_path_factory.mktemp("triton")
    settings = TritonSettings(name="sd15", device="cpu", threads=1, unverified=True)
    to_triton(exports("sd15"), folder / "own", settings)
    calling = dataclasses.replace(settings, name="sd15-bls", components="triton")
    to_triton(exports("sd15"), folder / "repository", calling)
    (folder / "own" / "sd15").rename(folder / "repository" / "sd15")
    return folder / "repository"


@pytest.fixture(scope="session")
def triton_server(triton_repository: Path) -> Iterator[TritonServer]:
    """The server of the session. Whoever kills, unloads or overloads starts another."""
    with start_server(triton_repository, triton_repository.parent / "server.log") as server:
        yield server
