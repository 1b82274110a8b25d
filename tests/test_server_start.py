"""How a service starts: its port is open at once, and says what it waits for until models are loaded."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.services import ROOT, listening

LOADING_S = 60
LIMIT_S = 20
MODEL = '[[models.demo.instances]]\nbackend = "{backend}"\noptions = {{ load_s = {load_s} }}\n'
BLOCKING = """
import time
from backends._thread import to_its_end
from backends.fake import FakeBackend

class BlockingBackend(FakeBackend):
    async def load(self) -> None:
        await to_its_end(lambda: time.sleep(self.options.load_s), name="load")
"""


@contextlib.contextmanager
def starting(
    folder: Path, load_s: float, backend: str = "fake"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`triptych serve` that preloads, and its address; it is left alone as soon as it listens."""
    (folder / "triptych.toml").write_text(MODEL.format(backend=backend, load_s=load_s))
    (folder / "blocking.py").write_text(BLOCKING)
    environ = {"PYTHONPATH": f"{ROOT}:{folder}", "TRIPTYCH_SERVER_PRELOAD": "demo"}
    with listening(folder, **environ) as (running, url):
        ask(f"{url}/healthz", 200)
        yield running, url


def ask(url: str, status: int) -> httpx.Response:
    """The answer, as soon as it is one with this status."""
    ends = time.monotonic() + LIMIT_S
    while time.monotonic() < ends:
        with contextlib.suppress(httpx.ConnectError):
            if (answer := httpx.get(url)).status_code == status:
                return answer
        time.sleep(0.01)
    raise AssertionError(f"{url} did not answer {status}")


def test_while_models_load_it_is_alive_and_not_ready(tmp_path: Path) -> None:
    with starting(tmp_path, LOADING_S) as (_, url):
        ready = httpx.get(f"{url}/readyz")
        refused = httpx.post(f"{url}/generate", json={"prompt": "x"})
        job = httpx.post(f"{url}/v1/jobs", json={"prompt": "x"})
        seen = [httpx.get(f"{url}{path}").status_code for path in ("/", "/health", "/metrics", "/v1/jobs")]
    assert (ready.status_code, "starting" in ready.json()["reason"]) == (503, True)
    assert [each.status_code for each in (refused, job)] == [503, 503]
    assert refused.json()["error"]["code"] == "starting"
    assert "retry-after" in refused.headers
    assert seen == [200, 200, 200, 503]


def test_when_they_are_loaded_it_serves(tmp_path: Path) -> None:
    with starting(tmp_path, 0.3) as (_, url):
        ask(f"{url}/readyz", 200)
        assert httpx.post(f"{url}/generate", json={"prompt": "x"}).status_code == 200


@pytest.mark.parametrize("backend", ["fake", "blocking:BlockingBackend"])
def test_sigterm_ends_it_at_once(tmp_path: Path, backend: str) -> None:
    """Even where a thread loads, which nothing can stop."""
    with starting(tmp_path, LOADING_S, backend) as (running, _):
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=5) == 0
        assert running.stderr is not None
        said = [json.loads(line)["message"] for line in running.stderr.read().splitlines()]
    assert "shutting down before it was ready" in said
