"""`scripts/triton_server`: how a server ends, well or killed, and that it leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import triton_files, triton_sweep
from scripts.triton_files import NoServerError, ServerFiles, find_server
from scripts.triton_sweep import sweep
from tests.triton_servers import TritonServer, left_of, start_server

ROOT = Path(__file__).parents[1]
LIGHT = "--load=sd15-bls_text_encoder"
"""A model without torch: it starts in two seconds."""


# --- servers that are killed; each start costs seconds


def test_a_killed_server_leaves_nothing(triton_repository: Path, tmp_path: Path) -> None:
    with start_server(triton_repository, tmp_path / "log", LIGHT) as server:
        assert _is_ready(server)
        assert len(left_of(server.script)) > 1  # shared memory, and the stub
        os.kill(server.pid, signal.SIGKILL)
        assert server.script.wait(30) == 137
        assert left_of(server.script) == []


def test_what_a_killed_script_leaves_is_swept_at_the_next_start(
    triton_repository: Path, tmp_path: Path
) -> None:
    with start_server(triton_repository, tmp_path / "log", LIGHT) as server:
        os.kill(server.pid, signal.SIGSTOP)  # which hears nothing of the script's end
        server.script.kill()
        server.script.wait(30)
        os.kill(server.pid, signal.SIGKILL)
        assert left_of(server.script)
        _wait_until(lambda: not (Path("/proc") / str(server.pid)).exists())
        sweep()
        _wait_until(lambda: left_of(server.script) == [])


def _is_ready(server: TritonServer) -> bool:
    with urllib.request.urlopen(f"http://{server.http}/v2/health/ready") as answer:
        return bool(answer.status == 200)


def _wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(300):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come about")


# --- sweeping


def test_only_the_memory_of_the_dead_is_swept() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    regions = {owner: _region(owner) for owner in (ended.pid, os.getpid())}
    try:
        assert f"shared memory triptych_{ended.pid}_test" in sweep()
        assert [owner for owner, region in regions.items() if region.exists()] == [os.getpid()]
        sweep(ended=os.getpid())
        assert not regions[os.getpid()].exists()
    finally:
        for region in regions.values():
            region.unlink(missing_ok=True)


def _region(owner: int) -> Path:
    region = triton_sweep.SHARED_MEMORY / f"triptych_{owner}_test"
    region.write_bytes(b"0")
    return region


# --- finding one


def test_a_server_is_named_by_its_folder_or_its_binary(tmp_path: Path) -> None:
    binary = tmp_path / "bin" / "tritonserver"
    with pytest.raises(NoServerError, match=r"has no bin/tritonserver; name the folder of a Triton server"):
        find_server(str(tmp_path))
    binary.parent.mkdir()
    binary.touch()
    assert find_server(str(tmp_path)) == find_server(str(binary)) == ServerFiles(tmp_path)


def test_without_a_server_the_sentence_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_files, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoServerError, match=r"There is no tritonserver, neither in \.venv-triton"):
        find_server()


def test_the_stub_is_that_of_this_python(tmp_path: Path) -> None:
    (tmp_path / "server/backends/python").mkdir(parents=True)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(NoServerError, match=r"has no stub for Python 3\.\d+"):
        ServerFiles(tmp_path / "server").backend_folder(folder)
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = tmp_path / "server/python_backend_stubs" / mine / triton_files.STUB
    stub.parent.mkdir(parents=True)
    stub.touch()
    shutil.rmtree(folder)
    folder.mkdir()
    assert (
        ServerFiles(tmp_path / "server").backend_folder(folder) / "python" / triton_files.STUB
    ).resolve() == stub


def test_models_run_in_this_environment_and_do_not_spin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    environment = ServerFiles(tmp_path, tmp_path / "libraries").environment()
    assert environment["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert str(tmp_path / "libraries") in environment["LD_LIBRARY_PATH"].split(":")
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"


# --- the command


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "scripts.triton_start", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    done = command(tmp_path / "nowhere")
    assert done.returncode == 2
    assert "nowhere'; make it with `triptych export triton`" in done.stderr


def test_a_model_that_is_not_there_is_a_sentence_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes/config.pbtxt").touch()
    done = command(tmp_path, "--load", "circles")
    assert done.returncode == 2
    assert "the repository has no model 'circles'; it has shapes" in done.stderr


def test_the_containers_command_is_printed(tmp_path: Path) -> None:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes/config.pbtxt").touch()
    words = command(tmp_path, "--container").stdout
    for each in (f"-v {tmp_path}:/models:ro", f"-v {ROOT}:/triptych", "--load-model=shapes", "--ipc=host"):
        assert each in words
    assert "-p 127.0.0.1:8001:8001" in words
