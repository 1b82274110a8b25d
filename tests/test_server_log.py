"""One line in the log for each request: what HTTP knows of it and the router's record, together."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from opentelemetry import trace

from router.config import WatchConfig
from router.record import Record
from router.server.exchange import Exchange
from router.server.log import JsonFormatter
from router.types import Timings
from tests.services import Service, fake_config, serving

Lines: TypeAlias = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def lines_of(caplog: pytest.LogCaptureFixture) -> Lines:
    """The lines under a request's id, as they are written."""
    caplog.set_level(logging.INFO, "router")

    def found(id: str) -> list[dict[str, Any]]:
        ours = [record for record in caplog.records if record.name.startswith("router")]
        lines = [json.loads(JsonFormatter().format(record)) for record in ours]
        return [line for line in lines if line.get("request_id") == id]

    return found


def test_a_request_for_pictures_has_one_line_with_all_of_it(tmp_path: Path, lines_of: Lines) -> None:
    with serving(tmp_path) as service:
        id = service.post("/generate", prompt="x", num_inference_steps=3).headers["x-request-id"]
    (line,) = lines_of(id)
    assert (line["message"], line["route"], line["status"], line["code"]) == (
        "answered",
        "/generate",
        200,
        "",
    )
    assert (line["model"], line["instance"], line["task"]) == ("demo", "demo/fake", "text-to-image")
    assert (line["steps"], line["pictures"], line["ticks"]) == (3, 1, 3)
    assert 0 < line["generate_s"] <= line["router_s"] <= line["seconds"]


def test_what_failed_is_told_as_far_as_it_came(tmp_path: Path, lines_of: Lines) -> None:
    faults = [{"at": "step", "error": "generate_failed"}]
    with serving(tmp_path, fake_config(faults=faults)) as service:
        id = service.post("/generate", prompt="x").headers["x-request-id"]
    (line,) = [each for each in lines_of(id) if "attempts" in each]
    assert (line["message"], line["code"], line["instance"]) == ("answered", "generate_failed", "demo/fake")


def test_an_error_within_a_stream_is_in_its_line(tmp_path: Path, lines_of: Lines) -> None:
    faults = [{"at": "step", "error": "generate_failed"}]
    with serving(tmp_path, fake_config(faults=faults)) as service:
        answer = service.post("/v1/images/generations", prompt="x", stream=True)
    (line,) = [each for each in lines_of(answer.headers["x-request-id"]) if each["message"] == "answered"]
    assert (line["status"], line["code"], line["model"]) == (200, "generate_failed", "demo")


def test_a_warning_has_a_line_of_its_own(tmp_path: Path, lines_of: Lines) -> None:
    config = fake_config(step_s=0.01).model_copy(update={"watch": WatchConfig(slow_s=0.001)})
    with serving(tmp_path, config) as service:
        id = service.post("/generate", prompt="x").headers["x-request-id"]
    warned, answered = lines_of(id)
    assert (warned["level"], answered["level"]) == ("warning", "info")
    assert warned["message"].startswith("request ended: The request took")
    assert answered["warnings"] == ["slow"]


def test_a_job_has_its_own_line_and_the_request_that_handed_it_in_too(
    tmp_path: Path, lines_of: Lines
) -> None:
    with serving(tmp_path) as service:
        answer = service.post("/v1/jobs", prompt="x")
        job = answer.json()["id"]
        _until_done(service, job)
    (handed_in,), (made,) = lines_of(answer.headers["x-request-id"]), lines_of(job)
    assert (handed_in["message"], handed_in["job"], "model" in handed_in) == ("answered", job, False)
    assert (made["message"], made["model"]) == ("request ended", "demo")


def test_one_record_is_taken_and_none_that_comes_late_or_is_anothers() -> None:
    record = Record(
        "mine", 0.0, "", "m", "", "none", "a", "fake", 1, 8, 8, 4, 1, 4, 4, 0, None, Timings(), 1.0
    )  # fmt: skip
    exchange, late = Exchange("mine"), Exchange("mine")
    assert not exchange.take(record._replace(request_id="another"))
    assert exchange.take(record)
    assert not exchange.take(record)
    late.line("GET", "/", 0.1)
    assert not late.take(record)


def _until_done(service: Service, job: str) -> None:
    ends = time.monotonic() + 20
    while service.http.get(f"/v1/jobs/{job}").json()["state"] != "done":
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_fastapis_telemetry_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hand on exceptions with all they say, wherever a library has set up OpenTelemetry."""
    asked: list[str] = []

    class Provider:
        def get_tracer(self, name: str, *_: object, **__: object) -> trace.Tracer:
            asked.append(name)
            return trace.NoOpTracer()

    monkeypatch.setattr(trace, "get_tracer_provider", Provider)
    with serving(tmp_path) as service:
        service.http.get("/v1/models")
        service.http.get("/v1/jobs/none")
    assert asked == []
