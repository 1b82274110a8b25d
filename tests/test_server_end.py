"""How a service ends: SIGTERM while requests run, a second signal, and what keeps it from beginning."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from router.server.state import StateFolder
from tests.command_line import triptych
from tests.services import listening

ROOT = Path(__file__).parent.parent
DEMO = '[[models.demo.instances]]\nbackend = "fake"\noptions = { step_s = 0.05 }\n'
AT_ONCE = 8


@contextlib.contextmanager
def process(folder: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`triptych serve` as operators run it, and its address."""
    (folder / "triptych.toml").write_text(DEMO)
    environ = {f"TRIPTYCH_SERVER_{name.upper()}": value for name, value in variables.items()}
    with listening(folder, **environ) as (running, url):
        while not _answers(url):
            time.sleep(0.02)
        yield running, url


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.ConnectError):
        return httpx.get(f"{url}/readyz").status_code == 200
    return False


def ask(url: str, steps: int) -> httpx.Response:
    body = {"prompt": "a red circle", "num_inference_steps": steps}
    return httpx.post(f"{url}/generate", json=body, timeout=30)


def wait_until_running(url: str, count: int) -> None:
    gauge = f'triptych_running{{instance="demo/fake",model="demo"}} {count}.0'
    while gauge not in httpx.get(f"{url}/metrics").text:
        time.sleep(0.02)


def test_at_sigterm_what_runs_is_answered(tmp_path: Path) -> None:
    with process(tmp_path, notice_s="0.2") as (running, url), ThreadPoolExecutor(AT_ONCE) as pool:
        asked = [pool.submit(ask, url, steps=20) for _ in range(AT_ONCE)]
        wait_until_running(url, AT_ONCE)
        running.send_signal(signal.SIGTERM)
        while (ready := httpx.get(f"{url}/readyz")).status_code == 200:
            time.sleep(0.01)
        refused = ask(url, steps=1)
        assert [each.result().status_code for each in asked] == [200] * AT_ONCE
        assert running.wait(timeout=10) == 0
    assert ready.json()["reason"] == "The service is shutting down."
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
    assert "retry-after" in refused.headers


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with process(tmp_path) as (running, url), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, url, steps=150)
        wait_until_running(url, 1)
        running.send_signal(signal.SIGTERM)
        while httpx.get(f"{url}/readyz").status_code == 200:
            time.sleep(0.01)
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=5) == -signal.SIGTERM
        with pytest.raises(httpx.TransportError):
            asked.result()


def test_what_outlasts_the_grace_time_is_stopped(tmp_path: Path) -> None:
    with process(tmp_path, notice_s="0", grace_s="0.3") as (running, url), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, url, steps=150)  # 7.5 s
        wait_until_running(url, 1)
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=6) == 0
        assert asked.result().json()["error"]["code"] == "shutting_down"


# --- what keeps it from beginning


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("router.server.log.set_up", lambda form: None)  # it is for the whole process
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    (tmp_path / "triptych.toml").write_text(DEMO)
    return tmp_path


def refused(*arguments: str) -> str:
    done = triptych("serve", *arguments)
    assert done.exit_code == 2, done.output
    return done.stderr


def test_a_state_folder_has_one_process(demo: Path) -> None:
    state = StateFolder(demo / "triptych-state")
    state.open()
    assert "in use by another process" in refused("--port", "0")
    state.close()


def test_several_processes_are_refused(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert "WEB_CONCURRENCY is '4'" in refused()


def test_a_port_that_is_taken_is_named(demo: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"port {port} (Address already in use)" in refused("--port", f"{port}")


def test_a_model_that_cannot_be_preloaded_is_an_error(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPTYCH_SERVER_PRELOAD", "other")
    done = triptych("serve", "--port", "0")
    assert done.exit_code == 3
    assert "There is no model 'other'" in done.stderr


def test_a_missing_library_names_its_cure(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "router.server.run", raising=False)
    monkeypatch.delattr("router.server.run", raising=False)
    assert "needs uvicorn, which is missing: pip install 'triptych[server]'" in refused()


def test_nobody_else_loads_the_service() -> None:
    code = "import sys, router, router.cli; print({'fastapi', 'uvicorn', 'starlette'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
