"""The whole service in a process of its own: killed, ended and begun again on the same state folder."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from router.server.jobs.limits import JobLimits
from router.server.jobs.store import JobStore

LIMIT_S = 30
_LISTENING = re.compile(r'"message": "listening".*"port": (\d+)')


class Process:
    """`triptych serve` in a folder."""

    def __init__(self, running: subprocess.Popen[bytes], http: httpx.Client) -> None:
        self.running = running
        self.http = http

    def submit(self, prompt: str, **fields: Any) -> dict[str, Any]:
        reply = self.http.post(
            "/v1/jobs", json={"prompt": prompt, **fields}, headers={"Idempotency-Key": prompt}
        )
        assert reply.status_code == 202, reply.text
        return reply.json()

    def until(self, job: dict[str, Any], state: str) -> dict[str, Any]:
        ends = time.monotonic() + LIMIT_S
        while (found := self.http.get(job["url"]).json())["state"] != state:
            assert time.monotonic() < ends, found
            time.sleep(0.005)
        return found

    def end(self, sign: signal.Signals) -> int:
        self.running.send_signal(sign)
        return self.running.wait(LIMIT_S)


@contextlib.contextmanager
def serving(folder: Path, *, step_s: float, **settings: Any) -> Iterator[Process]:
    table = "\n".join(f"{key} = {value}" for key, value in {"port": 0, "notice_s": 0, **settings}.items())
    options = f'backend = "fake"\noptions = {{ step_s = {step_s}, size = 16 }}'
    (folder / "triptych.toml").write_text(f"[server]\n{table}\n[[models.demo.instances]]\n{options}\n")
    command, log = [sys.executable, "-m", "router", "serve"], folder / f"log-{time.monotonic_ns()}"
    with (
        log.open("w") as written,
        subprocess.Popen(command, cwd=folder, stdout=written, stderr=subprocess.STDOUT) as running,
    ):
        try:
            with httpx.Client(base_url=_url_in(log, running), timeout=LIMIT_S) as http:
                yield Process(running, http)
        finally:
            running.kill()


def _url_in(log: Path, running: subprocess.Popen[bytes]) -> str:
    """Its address, when it is ready."""
    ends = time.monotonic() + LIMIT_S
    while time.monotonic() < ends:
        assert running.poll() is None, log.read_text()
        found = _LISTENING.search(log.read_text())
        with contextlib.suppress(httpx.ConnectError):
            url = f"http://127.0.0.1:{found[1]}" if found else ""
            if url and httpx.get(f"{url}/readyz").is_success:
                return url
        time.sleep(0.01)
    raise AssertionError(log.read_text())


def test_no_job_is_lost_or_made_twice_by_kill_9(tmp_path: Path) -> None:
    with serving(tmp_path, step_s=0.05, jobs_running=1) as process:
        accepted = [process.submit(f"{index}") for index in range(4)]
        first = process.until(accepted[0], "done")
        picture = process.http.get(first["result_url"]).content
        process.end(signal.SIGKILL)
    with serving(tmp_path, step_s=0.0) as process:
        done = [process.until(job, "done") for job in accepted]
        assert done[0] == first
        assert process.http.get(first["result_url"]).content == picture
        assert [job["seed"] for job in done] == [job["meta"]["seed"] for job in done]
        assert [job["seed"] for job in done] == [job["seed"] for job in accepted]
        assert [process.submit(f"{index}")["id"] for index in range(4)] == [job["id"] for job in accepted]
        listed = process.http.get("/v1/jobs").json()["data"]
        assert sorted(job["id"] for job in listed) == sorted(job["id"] for job in accepted)
        assert process.end(signal.SIGTERM) == 0


def test_at_sigterm_running_jobs_end_and_waiting_ones_stay(tmp_path: Path) -> None:
    with serving(tmp_path, step_s=0.1, jobs_running=1) as process:
        running, waiting = process.submit("running"), process.submit("waiting")
        process.until(running, "running")
        assert process.end(signal.SIGTERM) == 0
    with serving(tmp_path, step_s=0.0) as process:
        assert process.http.get(running["url"]).json()["state"] == "done"
        assert process.until(waiting, "done")["seed"] == waiting["seed"]


def test_after_the_grace_time_running_jobs_go_back_to_the_queue(tmp_path: Path) -> None:
    with serving(tmp_path, step_s=0.5, grace_s=0.2) as process:
        job = process.submit("long", num_inference_steps=100)
        process.until(job, "running")
        assert process.end(signal.SIGTERM) == 0
    store = JobStore(tmp_path / "triptych-state" / "jobs.sqlite", JobLimits())
    found = store.find("anonymous", job["id"])
    store.close()
    assert (found.state, found.starts) == ("queued", 0)


def test_a_damaged_store_keeps_the_service_from_beginning(tmp_path: Path) -> None:
    (tmp_path / "triptych.toml").write_text('[[models.demo.instances]]\nbackend = "fake"\n')
    store = tmp_path / "triptych-state" / "jobs.sqlite"
    store.parent.mkdir()
    store.write_bytes(b"no database" * 1000)
    command = [sys.executable, "-m", "router", "serve", "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 2
    assert f"{store} is damaged and was left as it is; restore it" in done.stderr
    assert "Traceback" not in done.stderr
    assert store.read_bytes() == b"no database" * 1000
