"""What a running service tells of itself and its newest requests, over HTTP and in `triptych top`."""

from __future__ import annotations

import contextlib
import importlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from router.config import WatchConfig
from router.images import encode
from router.types import RawImage
from tests.command_line import as_object, triptych
from tests.services import KEY, Service, fake_config, serving

TOP: Any = importlib.import_module("router.cli.top")  # `router.cli.top` is the command in it
SECRET = "a house called Rosebud"
PICTURE = encode(RawImage(64, 64, bytes([90]) * 64 * 64 * 3))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """It has served two requests, of which one was unlike its reference, and refused a third."""
    watch = WatchConfig(slow_s=1000, min_similarity=0.9999)
    config = fake_config().model_copy(update={"watch": watch})
    with serving(tmp_path_factory.mktemp("service"), config, keys=(KEY,), headers={"X-API-Key": KEY}) as made:
        made.http.post("/generate", json={"prompt": SECRET}, headers={"X-Request-ID": "first"})
        files = {"image": ("in.png", PICTURE)}
        made.http.post("/v1/images/edits", files=files, data={"prompt": SECRET, "seed": "1"})
        made.post("/generate", prompt=SECRET, model="none")
        yield made


def records(service: Service, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.http.get(f"/api/v1/records{query}").json()["records"]
    return found


# --- over HTTP


def test_the_newest_requests_come_first_under_the_replys_id(service: Service) -> None:
    refused, edited, first = records(service)
    assert (refused["code"], edited["code"], first["code"]) == ("model_not_found", "", "")
    assert (first["request_id"], first["instance"], first["steps"]) == ("first", "demo/fake", 4)
    assert (edited["task"], edited["mode"], edited["warnings"]) == (
        "image-to-image", "modify", ["low_similarity"]
    )  # fmt: skip
    assert edited["similarity"] < 0.9999
    assert "Rosebud" not in json.dumps(records(service))


def test_as_many_as_asked_for(service: Service) -> None:
    assert len(records(service, "?limit=2")) == 2
    for limit in ("0", "-1", "x", "", "10001", "1e3", "٣"):
        reply = service.http.get("/api/v1/records", params={"limit": limit})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "limit")


def test_how_it_stands(service: Service) -> None:
    found = service.http.get("/api/v1/statistics").json()
    assert (found["served"], found["failed"], found["running"], found["jobs_waiting"]) == (2, 1, 0, 0)
    (instance,), (lane,), (device,) = found["instances"], found["lanes"], found["devices"]
    assert (instance["name"], instance["state"], instance["breaker"]) == ("demo/fake", "ready", "closed")
    assert (lane["name"], lane["lost"]) == ("cpu", "")
    assert lane["ticks"] >= 8
    assert device == {"name": "cpu", "promised_bytes": 1_000_000, "budget_bytes": None}
    assert found["at"] >= found["started_at"]


@pytest.mark.parametrize("path", ["/api/v1/records", "/api/v1/statistics"])
def test_both_want_the_key(service: Service, path: str) -> None:
    assert service.http.get(path, headers={"X-API-Key": "x"}).status_code == 401


def test_warnings_are_metrics_too(service: Service) -> None:
    line = 'triptych_warnings_total{instance="demo/fake",model="demo",warning="low_similarity"} 1.0'
    assert line in service.http.get("/metrics").text


# --- triptych top


def top(service: Service, *arguments: str, key: str = KEY) -> Result:
    return triptych("top", "--url", service.url, "--key", key, *arguments)


def test_top_shows_it_all_once(folder: Path, service: Service) -> None:
    said = top(service, "--once").stdout
    for words in ("2 served, 1 failed", "demo/fake", "ready", "healthy", "Rows/tick", "1.0 MB", "unlimited"):
        assert words in said
    for words in ("first", "64x64", "image-to-image (modify)", "low similarity", "model_not_found"):
        assert words in said
    assert KEY not in said


def test_top_is_an_object_for_programs(folder: Path, service: Service) -> None:
    said = as_object(top(service, "--json", "--requests", "1"))
    assert said["statistics"]["served"] == 2
    assert [record["code"] for record in said["records"]] == ["model_not_found"]


def test_top_knows_the_service_that_is_configured(folder: Path, service: Service) -> None:
    port = service.url.rpartition(":")[2]
    (folder / "keys").write_text(f"{KEY}\n")
    (folder / "triptych.toml").write_text(f'[server]\nport = {port}\nkeys_file = "keys"\nhost = "0.0.0.0"')
    assert "2 served" in triptych("top", "--once").stdout
    refused = triptych("top", "--once", "--url", service.url)
    assert (refused.exit_code, "API key" in refused.stderr) == (1, True), "the key is for that service alone"


def test_top_goes_on_until_it_is_stopped_and_waits_for_a_service_that_went(
    folder: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    looks = iter([None, OSError(61, "Connection refused"), None, KeyboardInterrupt()])
    look = TOP._look

    def next_look(remote: Any, requests: int) -> Any:
        fault = next(looks)
        if isinstance(fault, OSError):
            raise TOP.RemoteError(remote._unreachable(fault))
        if fault is not None:
            raise fault
        return look(remote, requests)

    class Screen:
        def __init__(self, first: Any, **options: Any) -> None:
            shown.append(first)

        def __enter__(self) -> Screen:
            return self

        def __exit__(self, *exc: Any) -> None: ...

        def update(self, newest: Any, refresh: bool) -> None:
            shown.append(newest)

    monkeypatch.setattr(TOP, "_look", next_look)
    monkeypatch.setattr(TOP, "Live", Screen)
    monkeypatch.setattr(type(TOP.STDOUT), "is_terminal", True)
    result = top(service, "--every", "0.1")
    assert result.exit_code == 0
    assert [f"{group.renderables[0]}".startswith("No service answers") for group in shown] == [
        False, True, False
    ]  # fmt: skip


# --- sentences


@contextlib.contextmanager
def answering(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Iterator[str]:
    """Another program, which answers everything alike and keeps the keys that it is shown."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers.get("Authorization"))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None: ...

    shown: list[str | None] = []
    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    if headers:
        assert shown == [f"Bearer {KEY}"], "the key was led elsewhere"


def refusal(result: Result, exit_code: int = 1) -> str:
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_a_service_that_is_not_there(folder: Path) -> None:
    said = refusal(triptych("top", "--url", "http://127.0.0.1:1"))
    assert "No service answers at http://127.0.0.1:1" in said
    assert "triptych serve" in said


def test_a_wrong_key(folder: Path, service: Service) -> None:
    said = refusal(top(service, key="x" * 20))
    assert "no such API key" in said
    assert "x" * 20 not in said


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b"{}", "an older service, or another program"),
        (200, b"<html>", "no Triptych service, or one of another version"),
        (200, b'{"version": "9"}', "one of another version"),
        (500, b"", "answered 500"),
    ],
)
def test_another_program_or_version(folder: Path, status: int, body: bytes, words: str) -> None:
    with answering(status, body) as url:
        assert words in refusal(triptych("top", "--url", url))


def test_a_redirect_is_not_followed(folder: Path) -> None:
    with answering(302, headers={"Location": "/elsewhere"}) as url:
        assert "answered 302" in refusal(triptych("top", "--url", url, "--key", KEY))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--url", "localhost:8000"), "write it as http://localhost:8000"),
        (("--url", "file:///etc/passwd"), "write it as http"),
        (("--url", "http://localhost", "--key", "a\nb"), "copy it again"),
    ],
)
def test_what_is_no_address_or_key(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    assert words in refusal(triptych("top", *arguments), exit_code=2)
