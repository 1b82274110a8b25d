"""A service on a real socket: uvicorn in a thread of its own, for clients that speak to sockets alone."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from router.config import InstanceConfig, Limits, ModelConfig, RouterConfig
from router.router import BackendRouter
from router.server.app import create_app
from router.server.front import Front
from router.server.run import Server
from router.server.settings import ServerSettings

ROOT = Path(__file__).parent.parent
KEY = "a-key-of-the-tests-0123456789"
START_LIMIT_S = 20


class Service:
    """A running one: `url`, its `front` to look into, and `http`, a client that sends `headers`."""

    def __init__(self, url: str, front: Front, http: httpx.Client) -> None:
        self.url = url
        self.front = front
        self.http = http

    def post(self, path: str, **fields: Any) -> httpx.Response:
        return self.http.post(path, json=fields)

    def calls(self, stage: str) -> int:
        """How often the fake backend was asked for this."""
        (instance,) = self.front.router._catalogue.instances.values()
        count: int = instance._backend.calls[stage]  # type: ignore[union-attr]
        return count


def fake_config(limits: dict[str, Any] | None = None, **options: Any) -> RouterConfig:
    """One model `demo` on the fake backend."""
    instance = InstanceConfig(name="demo/fake", backend="fake", options=options)
    models = (ModelConfig(name="demo", instances=(instance,)),)
    return RouterConfig(models=models, default_model="demo", limits=Limits(**limits or {}))


@contextlib.contextmanager
def serving(
    folder: Path,
    config: RouterConfig | None = None,
    *,
    headers: dict[str, str] | None = None,
    **settings: Any,
) -> Iterator[Service]:
    """Serve from this state folder until the block is left."""
    settings = {"port": 0, "state": folder / "state", "notice_s": 0} | settings
    app = create_app(BackendRouter(config or fake_config()), ServerSettings(**settings))
    front: Front = app.state.front
    server = Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False), front)
    thread = threading.Thread(target=server.run, name="service")
    thread.start()
    try:
        url = _wait_for_url(server, thread)
        with httpx.Client(base_url=url, headers=headers, timeout=30) as http:
            yield Service(url, front, http)
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def listening(folder: Path, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`triptych serve` as operators run it, in this folder; and its address, once it listens."""
    known = os.environ | {"PYTHONPATH": str(ROOT), "TRIPTYCH_SERVER_PORT": "0"} | environ
    command = [sys.executable, "-m", "router", "serve"]
    running = subprocess.Popen(command, cwd=folder, env=known, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr is not None
        lines = (json.loads(line) for line in running.stderr)
        facts = next(line for line in lines if line["message"] == "listening")
        yield running, f"http://127.0.0.1:{facts['port']}"
    finally:
        running.kill()
        running.communicate()


def _wait_for_url(server: uvicorn.Server, thread: threading.Thread) -> str:
    ends = time.monotonic() + START_LIMIT_S
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        assert time.monotonic() < ends, "the service did not start in time"
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    return f"http://127.0.0.1:{port}"
