"""The table of errors and actions (docs/errors.md), by faults planted beneath a running service."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from router import errors, images
from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.server import errors as server_errors
from router.server.log import JsonFormatter
from router.types import RawImage
from tests.services import Service, fake_config, serving

TABLE = (Path(__file__).parent.parent / "docs/errors.md").read_text()
PROMPT = "a house called Rosebud"
PICTURE = images.encode(RawImage(64, 64, bytes(64 * 64 * 3)))


def fault(at: str, error: str, **more: Any) -> dict[str, Any]:
    return {"at": at, "error": error, **more}


def refused(reply: httpx.Response, status: int, code: str) -> str:
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, code), reply.text
    message: str = error["message"]
    return message


def assert_serves(service: Service) -> None:
    assert service.post("/generate", prompt=PROMPT).status_code == 200


@pytest.mark.may_block
async def test_out_of_memory_in_a_shared_run_is_halved_and_all_are_served(tmp_path: Path) -> None:
    planted = fault("run", "out_of_memory", rows_above=4, times=0)
    with serving(tmp_path, fake_config(step_s=0.02, faults=[planted])) as service:
        async with httpx.AsyncClient(base_url=service.url) as client:
            asked = [client.post("/generate", json={"prompt": PROMPT, "seed": seed}) for seed in range(6)]
            answers = await asyncio.gather(*asked)
        records = service.http.get("/api/v1/records").json()["records"]
    assert [answer.status_code for answer in answers] == [200] * 6
    assert max(record["rows"] / record["ticks"] for record in records) > 4, "no run was ever shared"


def test_out_of_memory_alone_is_refused_with_numbers_and_the_next_is_served(tmp_path: Path) -> None:
    with serving(tmp_path, fake_config(faults=[fault("run", "out_of_memory")])) as service:
        reply = service.post("/generate", prompt=PROMPT)
        said = refused(reply, 503, "memory_budget")
        assert_serves(service)
    assert "64x64" in said
    assert "2.00 GiB more were asked for where 1.00 GiB of 8.00 GiB were free" in said
    assert "ask for a smaller picture" in said
    assert int(reply.headers["retry-after"]) >= 1


def test_a_model_that_cannot_be_loaded_fails_one_request_and_is_tried_again(tmp_path: Path) -> None:
    with serving(tmp_path, fake_config(faults=[fault("load", "load_failed")])) as service:
        refused(service.post("/generate", prompt=PROMPT), 502, "load_failed")
        assert_serves(service)
        assert service.calls("load") == 2


@pytest.mark.parametrize("picture", [b"", b"no picture", PICTURE[:60], PICTURE.replace(b"IDAT", b"IDXT")])
def test_a_bad_reference_picture_is_refused_and_never_ignored(tmp_path: Path, picture: bytes) -> None:
    with serving(tmp_path) as service:
        files = {"image": ("in.png", picture)}
        edits = service.http.post("/v1/images/edits", files=files, data={"prompt": PROMPT})
        coded = service.post("/generate", prompt=PROMPT, image="bm8gcGljdHVyZQ==")
        for reply in (edits, coded):
            refused(reply, 400, "invalid_request_error")
            assert reply.json()["error"]["param"] == "image"
        assert service.calls("generate") == 0
        assert_serves(service)


def test_an_unknown_error_is_logged_under_the_replys_id_without_prompt_and_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with serving(tmp_path, fake_config(faults=[fault("step", "unknown")])) as service:
        reply = service.post("/generate", prompt=PROMPT)
        said = refused(reply, 502, "generate_failed")
        assert_serves(service)
    id = reply.headers["x-request-id"]
    ours = [record for record in caplog.records if record.name.startswith("router")]
    lines = [json.loads(JsonFormatter().format(record)) for record in ours]
    mine = [line for line in lines if line.get("request_id") == id]
    assert {line["message"] for line in mine} >= {"a picture failed", "answered"}
    (cause,) = [line for line in mine if "cause" in line]
    assert cause["cause"] == "ValueError: cannot paint '…' with unet.safetensors"
    assert any("fake.py" in frame for frame in cause["frames"])
    for secret in ("Rosebud", "/srv", "secret"):
        assert secret not in json.dumps(lines)
        assert secret not in reply.text
    assert "ValueError" in said


def test_a_lost_device_refuses_what_comes_and_another_instance_serves(tmp_path: Path) -> None:
    lost = {"faults": [fault("step", "device_lost")]}
    instances = (
        InstanceConfig(name="first", backend="fake", device="cpu:0", options=lost),
        InstanceConfig(name="second", backend="fake", device="cpu:1"),
    )
    models = (ModelConfig(name="demo", instances=instances),)
    config = RouterConfig(models=models, default_model="demo")
    with serving(tmp_path, config) as service:
        for _ in range(2):
            reply = service.post("/generate", prompt=PROMPT)
            assert (reply.status_code, reply.headers["x-triptych-instance"]) == (200, "second")
        assert "could not serve (device_lost)" in service.http.get("/api/v1/records").text
        (state, _) = service.http.get("/api/v1/statistics").json()["instances"]
    assert "tried again" in state["error"]


def test_a_job_that_fails_keeps_its_error_and_its_id_is_the_requests(tmp_path: Path) -> None:
    with serving(tmp_path, fake_config(faults=[fault("step", "unknown")])) as service:
        job = service.post("/v1/jobs", prompt=PROMPT).json()
        while service.http.get(f"/v1/jobs/{job['id']}").json()["state"] not in ("failed", "succeeded"):
            pass
        ended = service.http.get(f"/v1/jobs/{job['id']}").json()
        (record,) = service.http.get("/api/v1/records").json()["records"]
    assert ended["state"] == "failed"
    assert ended["error"]["code"] == record["code"] == "generate_failed"
    assert record["request_id"] == job["id"]


def test_the_table_has_every_code_that_can_be_told() -> None:
    raised = [
        error
        for module in (errors, server_errors)
        for error in vars(module).values()
        if isinstance(error, type) and issubclass(error, errors.RouterError)
    ]
    told = dict(re.findall(r"^\| `([a-z_]+)` \| (\d{3}) \|", TABLE, flags=re.MULTILINE))
    abstract = {"overloaded", "backend_error"}
    assert told == {error.code: f"{error.status}" for error in raised if error.code not in abstract}


def test_every_test_that_the_table_names_is_there() -> None:
    named = re.findall(r"`(test_\w+)\.py::(test_\w+)`", TABLE)
    assert len(named) > 15
    for file, name in named:
        assert f"def {name}(" in (Path(__file__).parent / f"{file}.py").read_text(), f"{file}::{name}"
