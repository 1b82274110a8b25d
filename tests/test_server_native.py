"""The native forms: pictures as addresses, base64 and bytes, with the facts of how they were made."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from router import images
from router.config import InstanceConfig, ModelConfig, RouterConfig
from tests.pictures import painted
from tests.services import Service, fake_config, serving

PHOTO = base64.b64encode(images.encode(painted(64, 64))).decode()
BASE: dict[str, Any] = {"prompt": "a red circle"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    config = fake_config(faults=[{"at": "generate", "prompt": "fire", "times": 0}])
    with serving(tmp_path_factory.mktemp("native"), config, max_body_bytes=100_000) as service:
        yield service


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


# --- what comes out


def test_pictures_are_kept_with_their_facts(service: Service) -> None:
    made = service.post("/api/v1/generate", **BASE, num_images_per_prompt=2, seed=5, width=96).json()
    assert [kept["seed"] for kept in made["images"]] == [5, 6]
    assert made["images"][0] == {name: made[name] for name in ("id", "image_url", "meta_url", "seed")}
    assert made["image_url"] == f"/outputs/images/{made['id']}.png"
    assert [opened(service.http.get(kept["image_url"]).content).size for kept in made["images"]] == [
        (96, 64)
    ] * 2
    kept = service.http.get(made["meta_url"]).json()
    assert kept == {"id": made["id"], **made["meta"]}
    assert (kept["instance"], kept["backend"], kept["task"]) == ("demo/fake", "fake", "text-to-image")
    assert kept["parameters"]["num_inference_steps"] == 4
    assert min(kept["timings"][name] for name in ("generate_s", "encode_s")) > 0
    assert kept["rows"] >= kept["ticks"] > 0


def test_base64_is_the_same_picture_and_nothing_is_kept(service: Service) -> None:
    outputs = service.front.outputs
    before = len(outputs._kept)
    made = service.post("/image/generate", **BASE, seed=5, output_format="jpeg", quality=80).json()
    picture = opened(base64.b64decode(made["image_base64"]))
    assert (picture.format, made["media_type"], made["images"]) == (
        "JPEG",
        "image/jpeg",
        [made["image_base64"]],
    )
    assert made["meta"]["seed"] == 5
    assert len(outputs._kept) == before


def test_bytes_come_with_their_facts_in_headers(service: Service) -> None:
    answer = service.post("/generate", prompt="ein Bär", size="96x64", seed=5, scheduler="DDIM")
    assert (answer.headers["content-type"], opened(answer.content).size) == ("image/png", (96, 64))
    headers = answer.headers
    assert (headers["x-triptych-seed"], headers["x-triptych-instance"]) == ("5", "demo/fake")
    parameters = json.loads(headers["x-triptych-parameters"])
    assert (parameters["width"], parameters["scheduler"]) == (96, "DDIM")
    assert "prompt" not in parameters
    stages = dict(stage.split(";dur=") for stage in headers["server-timing"].split(", "))
    assert min(float(stages[name]) for name in ("generate", "encode")) > 0
    assert "x-triptych-notes" not in headers


def test_a_failover_is_told_in_the_headers(tmp_path: Path) -> None:
    faults = [{"at": "generate", "times": 0}]
    first, second = (InstanceConfig(name=name, backend="fake", options=options) for name, options in (
        ("demo/first", {"faults": faults}), ("demo/second", {}),
    ))  # fmt: skip
    models = (ModelConfig(name="demo", instances=(first, second)),)
    with serving(tmp_path, RouterConfig(models=models, default_model="demo")) as service:
        headers = service.post("/generate", **BASE).headers
    assert headers["x-triptych-instance"] == "demo/second"
    (note,) = json.loads(headers["x-triptych-notes"])
    assert "demo/first" in note


def test_a_picture_can_be_given_as_base64_or_data_url(service: Service) -> None:
    for text in (PHOTO, f"data:image/png;base64,{PHOTO}"):
        made = service.post("/image/generate", **BASE, image=text, strength=0.5, seed=1).json()
        assert made["meta"]["task"] == "image-to-image"
    made = service.post("/image/generate", **BASE, image=PHOTO, mask_image=PHOTO, seed=1).json()
    assert made["meta"]["task"] == "inpainting"


def test_explain_names_who_would_serve_and_runs_nothing(service: Service) -> None:
    before = service.calls("generate")
    route = service.post("/api/v1/explain", **BASE).json()
    refused = service.post("/api/v1/explain", **BASE, scheduler="Other").json()
    assert (route["candidates"], route["error"]) == (["demo/fake"], None)
    assert refused["candidates"] == []
    assert "no scheduler 'Other'" in refused["rejections"]["demo/fake"]
    assert refused["error"]["code"] == "no_route"
    assert service.calls("generate") == before


# --- what is refused


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"prompt": "x", "guidance_scale": NaN}', "guidance_scale"),
        (b'{"prompt": "x", "strength": Infinity}', "strength"),
        (b'{"prompt": "x", "deadline_s": 1e999}', "deadline_s"),
        (b'{"prompt": "x", "seed": ' + b"9" * 6000 + b"}", "seed"),
        (b'{"prompt": "x", "seed": -1}', "seed"),
        (b'{"prompt": "x", "height": 64.5}', "height"),
        (b'{"prompt": "x", "height": true}', "height"),
        (b'{"prompt": "x", "prompt": "y"}', "prompt"),
        (b'{"prompt": "x", "loras": [{"name": "a", "name": "b"}]}', "name"),
        (b'{"prompt": ["x"]}', "prompt"),
        (b'{"prompt": "\\ud800"}', "prompt"),
        (b'{"prompt": "' + b"x" * 10_001 + b'"}', "prompt"),
        (b'{"prompt": "x", "cls": 1}', "cls"),
        (b'{"prompt": "x", "self": 1}', "self"),
        (b'{"prompt": "x", "image": 1}', "image"),
        (b'{"prompt": "x", "image": "%%%"}', "image"),
        (b'{"prompt": "x", "image": "aGVsbG8="}', "image"),
        (b'{"prompt": "x", "image": "http://localhost/a.png"}', "image"),
        (b'{"prompt": "x", "output_format": "gif"}', "output_format"),
        (b'{"prompt": "x", "quality": 50}', "quality"),
        (b'{"prompt": "x", "num_images_per_prompt": 100}', "num_images_per_prompt"),
        (b'{"seed": 1, "prompt": "x\xff"}', "prompt"),
        (b'{"prompt": "x", "loras": [{"name": "\xff"}]}', "loras"),
        (b'{"prompt\xff": "x"}', "body"),
        (b'{"prompt": "x\xff"', "body"),
        (b'{"prompt": "x"', "body"),
        (b"[" * 50_000, "body"),
        (b'{"a":' * 10_000, "body"),
        (b"[]", "body"),
        (b"", "body"),
    ],
)
def test_a_wrong_body_is_a_400_that_names_its_field(service: Service, body: bytes, param: str) -> None:
    answer = service.http.post("/api/v1/generate", content=body, headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert f"`{param}`" in error["message"]


def test_a_lone_surrogate_in_a_name_can_be_answered(service: Service) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b'{"\\ud800": 1}', b'{"\\ud800": 1, "\\ud800": 2}', b'{"loras": [{"\\udfff": 1}]}'):
        assert service.http.post("/api/v1/generate", content=body, headers=headers).status_code == 400


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_another_content_type_is_a_415(service: Service, kind: str) -> None:
    answer = service.http.post("/generate", content=b'{"prompt": "x"}', headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["param"]) == (415, "Content-Type")


def test_a_body_that_is_too_large_is_a_413(service: Service) -> None:
    large = b'{"prompt": "' + b"x" * 100_000 + b'"}'
    announced = service.http.post("/generate", content=large, headers={"Content-Type": "application/json"})
    chunked = service.http.post(
        "/generate",
        content=iter([large[:60_000], large[60_000:]]),
        headers={"Content-Type": "application/json"},
    )
    assert [announced.status_code, chunked.status_code] == [413, 413]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/generate", "POST"),
        ("HEAD", "/generate", "POST"),
        ("PUT", "/v1/jobs", "GET, HEAD, POST"),
        ("PUT", "/v1/jobs/job_1", "DELETE, GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
    ],
)
def test_another_method_is_a_405_that_names_all_it_could_be(
    service: Service, method: str, path: str, allowed: str
) -> None:
    answer = service.http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert method == "HEAD" or answer.json()["error"]["code"] == "method_not_allowed"


def test_one_picture_where_bytes_come_out(service: Service) -> None:
    error = service.post("/generate", **BASE, num_images_per_prompt=2).json()["error"]
    assert error["param"] == "num_images_per_prompt"
    assert service.post("/generate", **BASE, size="64x64", height=64).json()["error"]["param"] == "size"
    assert service.post("/generate", **BASE, size="64").json()["error"]["param"] == "size"


def test_who_sends_a_size_is_answered_about_the_size(service: Service) -> None:
    by_size = service.post("/generate", **BASE, size="60x64").json()["error"]
    by_sides = service.post("/generate", **BASE, width=60).json()["error"]
    assert (by_size["code"], by_size["param"], by_sides["param"]) == ("no_route", "size", "width")
    for said in (by_size["message"], by_size["details"]["rejections"]["demo/fake"]):
        assert "`size`" in said
        assert "`width`" not in said


def test_errors_have_their_status_and_say_nothing_of_the_prompt(service: Service) -> None:
    secret = "fire in a house called Rosebud"
    failed = service.post("/generate", prompt=secret)
    assert (failed.status_code, failed.json()["error"]["code"]) == (502, "generate_failed")
    assert "Rosebud" not in failed.text
    unknown = service.post("/generate", prompt=secret, model="other")
    assert (unknown.status_code, unknown.json()["error"]["details"]) == (404, {"models": ["demo"]})


@pytest.mark.parametrize(
    "path",
    [
        "/outputs/images/AAAAAAAAAAAAAAAAAAAAAA.png",
        "/outputs/images/..%2f..%2ftriptych.toml",
        "/outputs/images/%2e%2e",
        "/outputs/metadata/%00.json",
        "/outputs/metadata/AAAAAAAAAAAAAAAAAAAAAA",
        "/nothing",
    ],
)
def test_what_is_not_there_is_a_404_of_the_same_shape(service: Service, path: str) -> None:
    answer = service.http.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_a_picture_is_found_by_its_own_ending_only(service: Service) -> None:
    made = service.post("/api/v1/generate", **BASE).json()
    wrong = made["image_url"].replace(".png", ".webp")
    assert service.http.get(wrong).status_code == 404
    assert isinstance(service.http.get(made["image_url"]), httpx.Response)
