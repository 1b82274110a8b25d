"""Latents over HTTP: addresses beside kept pictures, base64 beside base64, refusals of who has none."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.errors import NoRouteError
from router.router import BackendRouter
from tests.doubles import Double
from tests.jobs_doubles import until
from tests.services import KEY, Service, serving

ASK: dict[str, Any] = {"prompt": "a red circle", "seed": 1, "latents": True}
SIZE = (4, 8, 8)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with serving(tmp_path_factory.mktemp("latents"), headers=headers, keys=(KEY,)) as service:
        yield service


def shape_in(data: bytes) -> tuple[int, ...]:
    """Of the one tensor in a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    assert list(header) == ["latents"]
    assert header["latents"]["data_offsets"][1] == len(data) - 8 - length
    return tuple(header["latents"]["shape"])


def without_key(service: Service, url: str) -> httpx.Response:
    return httpx.get(url if url.startswith("http") else service.url + url)


def test_kept_pictures_have_their_latents_at_a_signed_address(service: Service) -> None:
    made = service.post("/api/v1/generate", **ASK, num_images_per_prompt=2).json()
    urls = [each["latents_url"] for each in made["images"]]
    assert len(set(urls)) == 2
    assert all(url.startswith("/outputs/latents/") and ".safetensors?" in url for url in urls)
    assert shape_in(without_key(service, urls[0]).content) == SIZE
    assert without_key(service, urls[0].partition("?")[0]).status_code == 401
    fingerprints = [base64.b64decode(text) for text in made["meta"]["fingerprints"]]
    assert [len(each) for each in fingerprints] == [512, 512]
    assert fingerprints[0] != fingerprints[1]


def test_a_picture_that_was_not_asked_for_with_latents_has_none(service: Service) -> None:
    made = service.post("/api/v1/generate", prompt="a").json()
    assert "latents_url" not in made
    assert "fingerprints" not in made["meta"]
    for name in (f"{made['id']}.safetensors", f"{made['id']}.png", "..%2fx.safetensors"):
        assert service.http.get(f"/outputs/latents/{name}").status_code == 404


def test_base64_pictures_have_base64_latents(service: Service) -> None:
    made = service.post("/image/generate", **ASK).json()
    (text,) = made["latents"]
    assert shape_in(base64.b64decode(text)) == SIZE
    assert "latents" not in service.post("/image/generate", prompt="a").json()


def test_bytes_name_their_latents_in_a_header(service: Service) -> None:
    made = service.post("/generate", **ASK)
    assert shape_in(without_key(service, made.headers["x-triptych-latents"]).content) == SIZE
    assert len(base64.b64decode(made.headers["x-triptych-fingerprint"])) == 512
    assert "x-triptych-latents" not in service.post("/generate", prompt="a").headers


def test_openai_form_has_them_in_its_data(service: Service) -> None:
    (coded,) = service.post("/v1/images/generations", **ASK).json()["data"]
    assert shape_in(base64.b64decode(coded["latents"])) == SIZE
    (kept,) = service.post("/v1/images/generations", **ASK, response_format="url").json()["data"]
    assert shape_in(without_key(service, kept["latents_url"]).content) == SIZE
    streamed = service.post("/v1/images/generations", **ASK, stream=True).text
    last = json.loads(streamed.strip().splitlines()[-1].removeprefix("data: "))
    assert last["latents"] == coded["latents"]


def test_a_job_keeps_them_beside_its_pictures(service: Service) -> None:
    job = until(service, service.post("/v1/jobs", **ASK, num_images_per_prompt=2).json(), "done")
    urls = [each["latents_url"] for each in job["images"]]
    assert [shape_in(without_key(service, url).content) for url in urls] == [SIZE, SIZE]
    assert without_key(service, urls[0].partition("?")[0]).status_code == 401
    plain = until(service, service.post("/v1/jobs", prompt="a").json(), "done")
    assert plain["images"][0]["latents_url"] is None
    assert service.http.get(f"{plain['url']}/latents/0").status_code == 404
    assert service.http.get(f"{job['url']}/images/-1").status_code == 404


def test_outputs_that_are_too_much_go_with_their_latents(tmp_path: Path) -> None:
    with serving(tmp_path, outputs_bytes=4_000) as small:
        urls = [small.post("/api/v1/generate", **ASK).json()["latents_url"] for _ in range(4)]
        assert small.http.get(urls[0]).status_code == 404
        assert len(list((tmp_path / "state").rglob("*.safetensors"))) < 4


async def test_a_backend_without_latents_refuses_in_one_sentence() -> None:
    instance = InstanceConfig(name="a", backend="a")
    config = RouterConfig(models=(ModelConfig(name="m", instances=(instance,)),), default_model="m")
    double = Double()
    async with BackendRouter(config, resolve=lambda name: lambda config, lanes: double) as router:
        with pytest.raises(NoRouteError, match="does not hand out `latents`"):
            await router.generate(prompt="a", latents=True)
    assert "generate" not in double.calls
