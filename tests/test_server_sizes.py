"""Sizes over HTTP: by name and aspect ratio in every form, changed with leave alone, listed, and refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from router import images
from tests.services import Service, fake_config, serving

BASE = {"prompt": "a red circle", "seed": 3}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Pictures of 64x64, multiples of 8, 96 at most."""
    limits = {"max_height": 96, "max_width": 96}
    with serving(tmp_path_factory.mktemp("state"), fake_config(limits)) as running:
        yield running


def sides(parameters: dict[str, Any]) -> tuple[int, int]:
    return parameters["width"], parameters["height"]


@pytest.mark.parametrize("path", ["/api/v1/generate", "/image/generate"])
def test_native_forms_take_size_and_aspect_ratio(service: Service, path: str) -> None:
    by_name = service.post(path, **BASE, size="s").json()["meta"]["parameters"]
    by_both = service.post(path, **BASE, size="l", aspect_ratio="16:9").json()["meta"]["parameters"]
    in_pixels = service.post(path, **BASE, size="80x64").json()["meta"]["parameters"]
    assert [sides(each) for each in (by_name, by_both, in_pixels)] == [(32, 32), (88, 48), (80, 64)]


def test_bytes_are_as_large_as_was_asked(service: Service) -> None:
    picture = images.decode(service.post("/generate", **BASE, aspect_ratio="3:2").content)
    assert (picture.width, picture.height) == (72, 48)


def test_openais_size_takes_names_too(service: Service) -> None:
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0)
    reply = client.images.generate(prompt="x", size="m", extra_body={"aspect_ratio": "9:16"})
    assert reply.size == "40x72"
    with pytest.raises(openai.BadRequestError, match="s, m, l or `auto`"):
        client.images.generate(prompt="x", size="xl")


def test_a_job_takes_them(service: Service) -> None:
    job = service.post("/v1/jobs", **BASE, size="m", aspect_ratio="1:1").json()
    with service.http.stream("GET", f"/v1/jobs/{job['id']}/events") as events:
        events.read()
    assert sides(service.http.get(f"/v1/jobs/{job['id']}").json()["meta"]["parameters"]) == (48, 48)


def test_a_size_is_changed_with_leave_alone_and_the_reply_says_from_what_to_what(service: Service) -> None:
    asked = BASE | {"size": "70x64"}
    refused = service.post("/api/v1/generate", **asked)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "size")
    meta = service.post("/api/v1/generate", **asked, allow_adjustments=["size"]).json()["meta"]
    said = "The size was changed from 64x70 to 64x72 (height x width), the nearest that can be served."
    assert (sides(meta["parameters"]), meta["adjustments"]) == ((72, 64), [said])
    raw = service.post("/generate", **asked, allow_adjustments=["size"])
    assert said in raw.headers["x-triptych-adjustments"]


def test_what_passes_the_limits_is_told_of_the_field_that_was_used(service: Service) -> None:
    by_ratio = service.post("/generate", **BASE, aspect_ratio="3:1").json()["error"]
    by_both = service.post("/generate", **BASE, size="l", aspect_ratio="3:1").json()["error"]
    assert (by_ratio["param"], by_both["param"]) == ("aspect_ratio", "size")
    assert "`size` may be at most 96, not 120" in by_both["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"size": "m", "height": 64}, "size"),
        ({"aspect_ratio": "16:9", "width": 64}, "aspect_ratio"),
        ({"aspect_ratio": "wide"}, "aspect_ratio"),
    ],
)
def test_a_contradiction_names_its_field(service: Service, fields: dict[str, Any], param: str) -> None:
    answer = service.post("/api/v1/generate", **BASE, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_sizes_are_told_for_any_ratio(service: Service) -> None:
    told = service.http.get("/api/v1/sizes", params={"model": "demo", "aspect_ratio": "3:2"}).json()
    assert [(each["preset"], *sides(each)) for each in told["sizes"]] == [
        ("s", 40, 24), ("m", 56, 40), ("l", 72, 48),
    ]  # fmt: skip
    plain = service.http.get("/api/v1/sizes").json()
    assert (plain["model"], plain["sizes"][-1]["width"]) == ("demo", 64)
    beyond = service.http.get("/api/v1/sizes", params={"aspect_ratio": "3:1"}).json()
    assert [each["preset"] for each in beyond["sizes"]] == ["s", "m"]  # `l` passes the limit


@pytest.mark.parametrize(
    ("asked", "status", "param"),
    [({"model": "other"}, 404, "model"), ({"aspect_ratio": "0:1"}, 400, "aspect_ratio")],
)
def test_sizes_of_nothing_are_refused(
    service: Service, asked: dict[str, str], status: int, param: str
) -> None:
    answer = service.http.get("/api/v1/sizes", params=asked)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def test_the_document_lists_what_a_name_stands_for(service: Service) -> None:
    (model,) = service.http.get("/api/v1/capabilities").json()["models"]
    for size in model["sizes"]:
        asked = BASE | {"size": size["preset"], "aspect_ratio": size["ratio"]}
        explained = service.post("/api/v1/explain", **asked).json()
        assert (sides(explained["parameters"]), explained["error"]) == (sides(size), None)


def test_fixed_shapes_offer_what_they_have(tmp_path: Path) -> None:
    with serving(tmp_path, fake_config(profiles=["64x64", "64x112"])) as running:
        (model,) = running.http.get("/api/v1/capabilities").json()["models"]
        assert {(size["ratio"], size["preset"], *sides(size)) for size in model["sizes"]} == {
            ("1:1", "l", 64, 64), ("16:9", "l", 112, 64),
        }  # fmt: skip
        refused = running.post("/generate", **BASE, size="s").json()["error"]
        assert "its graphs are made for 64x64, 64x112 (height x width), not 32x32." in refused["message"]
