"""HEAD: what GET says in its headers, and no body, at every address that is read."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from router.server.head import Head
from router.server.log import BatchHandler, JsonFormatter
from tests.services import Service, fake_config, serving

VARYING = {"date", "x-request-id"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("head")) as running:
        yield running


def headers(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in VARYING}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/page/main.js", "/openapi.json", "/v1/models"])
def test_it_has_the_headers_of_get_and_no_body(service: Service, path: str) -> None:
    read, headed = service.http.get(path), service.http.head(path)
    assert (headed.status_code, headers(headed)) == (200, headers(read))
    assert int(headed.headers["content-length"]) == len(read.content) > 0
    assert headed.content == b""


def test_a_kept_picture_can_be_asked_for(service: Service) -> None:
    made = service.post("/api/v1/generate", prompt="x").json()
    for url in (made["image_url"], made["meta_url"]):
        assert int(service.http.head(url).headers["content-length"]) == len(service.http.get(url).content)
    gone = service.http.head("/outputs/images/AAAAAAAAAAAAAAAAAAAAAA.png")
    assert (gone.status_code, gone.content) == (404, b"")


def test_a_stream_ends_after_its_headers(tmp_path: Path) -> None:
    with serving(tmp_path, fake_config(step_s=0.2)) as service:
        job = service.post("/v1/jobs", prompt="x", num_inference_steps=100).json()
        headed = service.http.head(f"{job['url']}/events", timeout=5)
        assert headed.headers["content-type"].startswith("text/event-stream")
        assert service.http.get(job["url"]).json()["state"] != "done"
        service.http.delete(job["url"])


def test_an_instance_that_is_not_ready_says_so(tmp_path: Path) -> None:
    config = fake_config(faults=[{"at": "probe", "error": "backend_unavailable", "times": 0}])
    with serving(tmp_path, config) as service:
        assert service.http.head("/readyz").status_code == 503


def test_the_log_has_its_method_and_route(service: Service) -> None:
    stream, logger = io.StringIO(), logging.getLogger("router")
    handler = BatchHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        id = service.http.head("/healthz").headers["x-request-id"]
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    handler.flush()
    (line,) = [each for each in map(json.loads, stream.getvalue().splitlines()) if each["request_id"] == id]
    assert (line["method"], line["route"]) == ("HEAD", "/healthz")


async def test_servers_that_would_send_a_body_get_none() -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"pixels"})  # type: ignore[operator]

    transport = httpx.ASGITransport(Head(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://triptych") as http:
        assert (await http.head("/")).content == b""
        assert (await http.get("/")).content == b"pixels"
