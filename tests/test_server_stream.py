"""Streamed pictures: partial ones from the shipped model, errors, and a client that leaves."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest
from PIL import Image

from router.config import RouterConfig
from router.settings import load_config
from tests.services import fake_config, serving

PROMPT = "a red circle on a white background"


def shipped_config(folder: Path) -> RouterConfig:
    return load_config(environ={"TRIPTYCH_DEVICE": "cpu"}, directory=folder)


def size_of(text: str) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(text))).size


def eventually(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_partial_pictures_and_the_whole_one(tmp_path: Path) -> None:
    with serving(tmp_path, shipped_config(tmp_path)) as service:
        client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none")
        stream = client.images.generate(
            prompt=PROMPT, stream=True, partial_images=2, extra_body={"num_inference_steps": 6, "seed": 3}
        )
        *partial, completed = list(stream)
        plain = client.images.generate(prompt=PROMPT, extra_body={"num_inference_steps": 6, "seed": 3})
        client.close()
    assert [event.type for event in partial] == ["image_generation.partial_image"] * 2
    assert [event.partial_image_index for event in partial] == [0, 1]  # type: ignore[union-attr]
    assert len({event.b64_json for event in partial}) == 2
    assert completed.type == "image_generation.completed"
    assert size_of(completed.b64_json) == (128, 128)
    assert completed.usage.total_tokens == 0
    assert plain.data is not None
    assert completed.b64_json == plain.data[0].b64_json


def test_a_refused_stream_is_an_error_reply(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.NotFoundError):
            client.images.generate(prompt=PROMPT, model="other", stream=True)
        client.close()


def test_what_fails_on_the_way_is_the_last_event(tmp_path: Path) -> None:
    faults = [{"at": "step", "prompt": "fire", "times": 0}]
    config = fake_config(steps=3, load_s=0.05, faults=faults)
    with serving(tmp_path, config) as service:
        client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.APIError, match="planted at 'step'"):
            list(client.images.generate(prompt="fire", stream=True))
        client.close()
        assert "/v1/images" in service.http.get("/metrics").text


def test_several_pictures_are_several_last_events(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        body = {"prompt": PROMPT, "n": 2, "stream": True}
        text = service.post("/v1/images/generations", **body).text
    data = [
        json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")
    ]
    assert [each["type"] for each in data] == ["image_generation.completed"] * 2
    assert data[1]["seed"] == data[0]["seed"] + 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/images/generations", {"prompt": PROMPT, "stream": True, "num_inference_steps": 100}),
        ("/v1/images/generations", {"prompt": PROMPT, "num_inference_steps": 100}),
        ("/generate", {"prompt": PROMPT, "num_inference_steps": 100}),
        ("/api/v1/generate", {"prompt": PROMPT, "num_inference_steps": 100}),
    ],
)
def test_a_client_that_leaves_stops_its_work(tmp_path: Path, path: str, body: dict[str, object]) -> None:
    with serving(tmp_path, fake_config(step_s=0.02)) as service:
        with (
            pytest.raises(httpx.ReadTimeout),
            service.http.stream("POST", path, json=body, timeout=0.2) as reply,
        ):
            reply.read()
        eventually(lambda: service.front.router.statistics().cancelled == 1)
        steps = service.calls("step")
        assert service.front.router.statistics().running == 0
        time.sleep(0.1)  # five steps' time
        assert service.calls("step") == steps < 100
        eventually(lambda: service.front.running == 0)
        if not body.get("stream"):
            eventually(lambda: 'status="499"' in service.http.get("/metrics").text)
