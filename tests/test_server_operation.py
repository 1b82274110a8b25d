"""What operators see: health, metrics, log lines, capabilities, and the service under too much load."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from pathlib import Path

import httpx
import pytest

from router.prompt_ability import AS_THEY_ARE
from router.server.log import BatchHandler, JsonFormatter, TextFormatter
from tests.services import KEY, fake_config, serving

SECRET = "a house called Rosebud"


# --- health


def test_ready_where_an_instance_can_serve_and_no_picture_is_made(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        assert service.http.get("/healthz").json() == {"status": "alive"}
        assert service.http.get("/readyz").json() == {"status": "ready", "reason": ""}
        assert (service.calls("generate"), service.calls("load")) == (0, 0)


def test_not_ready_where_none_can(tmp_path: Path) -> None:
    config = fake_config(faults=[{"at": "probe", "error": "backend_unavailable", "times": 0}])
    with serving(tmp_path, config) as service:
        answer = service.http.get("/readyz")
        assert (answer.status_code, "No instance" in answer.json()["reason"]) == (503, True)
        assert service.http.get("/healthz").status_code == 200


def test_preloaded_models_are_loaded_before_it_is_ready(tmp_path: Path) -> None:
    with serving(tmp_path, preload=("demo",)) as service:
        assert service.http.get("/readyz").status_code == 200
        (status,) = service.front.router.instances()
        assert (status.state, status.served, status.running) == ("ready", 0, 0)
        assert (service.calls("load"), service.calls("generate")) == (1, 0)


# --- metrics and log


def test_metrics_count_by_route_model_and_instance(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        service.post("/generate", prompt="x", num_inference_steps=3)
        service.post("/generate", prompt="x", model="other")
        service.http.get("/outputs/images/AAAAAAAAAAAAAAAAAAAAAA.png")
        text = service.http.get("/metrics").text
    for line in (
        'triptych_requests_total{route="/generate",status="200"} 1.0',
        'triptych_requests_total{route="/outputs/images/{name}",status="404"} 1.0',
        'triptych_errors_total{code="model_not_found"} 1.0',
        'triptych_pictures_total{instance="demo/fake",model="demo"} 1.0',
        'triptych_rows_per_tick_sum{instance="demo/fake",model="demo"} 2.0',
        'triptych_step_seconds_count{instance="demo/fake",model="demo"} 1.0',
        'triptych_queue_wait_seconds_count{instance="demo/fake",model="demo"} 1.0',
        'triptych_breaker_state{instance="demo/fake",model="demo",state="closed"} 1.0',
        'triptych_promised_bytes{device="cpu"} 1e+06',
        'triptych_lane_ticks_total{device="cpu"} 3.0',
        'triptych_lane_occupancy{device="cpu"} 2.0',
    ):
        assert line in text


def test_a_log_line_has_the_replys_id_and_neither_prompt_nor_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with serving(tmp_path, keys=(KEY,), headers={"X-API-Key": KEY}) as service:
        made = service.http.post("/generate", json={"prompt": SECRET})
        service.http.post(
            "/generate", json={"prompt": SECRET, "height": 1}, headers={"X-Request-ID": "mine-1"}
        )
        given = service.http.get(f"/nothing/{SECRET}", headers={"X-Request-ID": "a\tb"})
    ours = [record for record in caplog.records if record.name.startswith(("router", "uvicorn"))]
    lines = [json.loads(JsonFormatter().format(record)) for record in ours]
    answered = {line["request_id"]: line for line in lines if line["message"] == "answered"}
    assert answered[made.headers["x-request-id"]]["instance"] == "demo/fake"
    assert answered["mine-1"] | {"status": 400, "code": "invalid_request_error"} == answered["mine-1"]
    assert given.headers["x-request-id"] in answered
    everything = json.dumps(lines)
    assert "Rosebud" not in everything
    assert KEY not in everything


def test_a_mistake_of_ours_is_told_to_the_log_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tmp_path) as service:
        service.front.router.generate = None  # type: ignore[assignment, method-assign]
        answer = service.post("/generate", prompt=SECRET)
        text = service.http.get("/metrics").text
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "NoneType" not in answer.text
    assert any(
        getattr(record, "request_id", "") == answer.headers["x-request-id"] for record in caplog.records
    )
    assert 'triptych_errors_total{code="internal_error"} 1.0' in text


def test_the_text_form_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    record = logging.makeLogRecord({"msg": "answered", "levelname": "INFO", "status": 200, "code": ""})
    assert TextFormatter().format(record).endswith("info answered status=200")


def test_lines_are_written_together_and_a_warning_at_once() -> None:
    stream = io.StringIO()
    handler = BatchHandler(stream)
    handler.setFormatter(TextFormatter())
    handler.handle(logging.makeLogRecord({"msg": "first", "levelno": logging.INFO}))
    assert stream.getvalue() == ""
    handler.handle(logging.makeLogRecord({"msg": "second", "levelno": logging.WARNING}))
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == ["first", "second"]
    for _ in range(200):
        handler.handle(logging.makeLogRecord({"msg": "more", "levelno": logging.INFO}))
    handler.flush()
    assert len(stream.getvalue().splitlines()) == 202


# --- capabilities


def test_capabilities_say_what_can_be_asked_and_why_not(tmp_path: Path) -> None:
    config = fake_config(tasks=["text-to-image"], negative_prompt=False, schedulers=["DDIM"])
    with serving(tmp_path, config, keys=(KEY,), headers={"X-API-Key": KEY}) as service:
        document = service.http.get("/api/v1/capabilities").json()
    (model,) = document["models"]
    (instance,) = model["instances"]
    assert (document["keys"], document["default_model"], model["tasks"]) == (True, "demo", ["text-to-image"])
    assert model["defaults"]["num_inference_steps"] == 4
    assert instance["schedulers"] == ["DDIM"]
    assert instance["cannot"] | {"true_cfg_scale": ""} == {
        "true_cfg_scale": "",
        "image-to-image": "it does text-to-image, not image-to-image.",
        "inpainting": "it does text-to-image, not inpainting.",
        "upscale": "it does text-to-image, not upscale.",
        "negative_prompt": "`negative_prompt` is not a parameter of this model.",
        "long_prompt": f'`long_prompt` cannot be "chunk": {AS_THEY_ARE.lacking}.',
        "prompt_weighting": f"`prompt_weighting` cannot be had: {AS_THEY_ARE.lacking}.",
    }


def test_every_size_that_is_offered_is_served(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        (model,) = service.http.get("/api/v1/capabilities").json()["models"]
        assert {size["ratio"] for size in model["sizes"]} == {"1:1", "16:9", "9:16", "4:3", "3:4"}
        for size in model["sizes"]:
            asked = {"prompt": "x", "width": size["width"], "height": size["height"]}
            assert service.post("/api/v1/explain", **asked).json()["candidates"] == ["demo/fake"]


def test_an_instance_with_fixed_sizes_offers_those(tmp_path: Path) -> None:
    with serving(tmp_path, fake_config(profiles=["64x64", "64x112"])) as service:
        (model,) = service.http.get("/api/v1/capabilities").json()["models"]
    assert {(size["width"], size["height"]) for size in model["sizes"]} <= {(64, 64), (112, 64)}
    assert [profile["name"] for profile in model["instances"][0]["profiles"]] == ["64x64", "64x112"]


# --- too much at once


@pytest.mark.may_block
async def test_of_500_at_once_those_that_fit_are_served_and_the_rest_refused_at_once(tmp_path: Path) -> None:
    limits = {"concurrency": 4, "queue": 16}
    body = {"prompt": "x", "num_inference_steps": 20}
    with serving(tmp_path, fake_config(limits, step_s=0.05)) as service:
        async with httpx.AsyncClient(base_url=service.url, limits=httpx.Limits(), timeout=60) as client:

            async def ask() -> tuple[int, float, str | None]:
                started = time.perf_counter()
                answer = await client.post("/generate", json=body)
                return answer.status_code, time.perf_counter() - started, answer.headers.get("retry-after")

            answers = await asyncio.gather(*[ask() for _ in range(500)])
        made = service.calls("generate")
    served = [seconds for status, seconds, _ in answers if status == 200]
    refused = [again for status, _, again in answers if status == 429]
    assert len(served) + len(refused) == 500
    assert 20 <= len(served) <= 40
    assert made == len(served)
    assert all(again is not None and int(again) >= 1 for again in refused)
