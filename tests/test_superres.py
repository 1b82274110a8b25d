"""Larger pictures over HTTP and from the command line."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router import images
from router.types import RawImage
from tests.command_line import DEMO, as_object, configure, pictures_in, triptych
from tests.jobs_doubles import until
from tests.pictures import varied
from tests.services import Service, fake_config, serving
from tests.upscalers import compact

IMAGE = base64.b64encode(images.encode(varied(24, 32))).decode()
LEAVE = ["upscaler"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One without an upscaler."""
    with serving(tmp_path_factory.mktemp("superres")) as service:
        yield service


@pytest.fixture(scope="module")
def able(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that makes pictures larger."""
    config = fake_config(tasks=["upscale"], scales=[2, 4])
    with serving(tmp_path_factory.mktemp("able"), config) as service:
        yield service


def size_of(data: bytes) -> tuple[int, int]:
    image: RawImage = images.decode(data)
    return image.height, image.width


# --- HTTP


def test_superres_makes_it_four_times_as_large_unless_told(able: Service) -> None:
    made = able.post("/superres", image=IMAGE)
    assert (made.status_code, size_of(made.content)) == (200, (96, 128))
    assert (made.headers["x-triptych-backend"], made.headers["x-triptych-adjustments"]) == ("fake", "[]")
    data = f"data:image/png;base64,{IMAGE}"
    twice = able.post("/superres", image_url=data, scale=2, output_format="webp")
    assert (twice.headers["content-type"], size_of(twice.content)) == ("image/webp", (48, 64))


def test_superres_without_a_model_is_refused_and_with_leave_names_lanczos(service: Service) -> None:
    refused = service.post("/superres", image=IMAGE).json()["error"]
    assert (refused["code"], refused["param"]) == ("no_route", "upscaler")
    assert "Lanczos" in refused["message"]
    made = service.post("/superres", image=IMAGE, allow_adjustments=LEAVE)
    assert size_of(made.content) == (96, 128)
    assert made.headers["x-triptych-backend"] == made.headers["x-triptych-model"] == "lanczos"
    (said,) = json.loads(made.headers["x-triptych-adjustments"])
    assert "Lanczos" in said


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "image"),
        ({"image": None}, "image"),
        ({"image": "%%%"}, "image"),
        ({"image": IMAGE, "image_url": f"data:image/png;base64,{IMAGE}"}, "image_url"),
        ({"image": IMAGE, "scale": 3}, "scale"),
        ({"image": IMAGE, "prompt": "a"}, "prompt"),
        ({"image": IMAGE, "mask_image": IMAGE}, "mask_image"),
        ({"image": IMAGE, "allow_adjustments": ["anything"]}, "allow_adjustments.0"),
        ({"image": IMAGE, "model": "absent"}, "model"),
    ],
)
def test_wrong_bodies_are_refused_by_their_field(able: Service, fields: dict[str, Any], param: str) -> None:
    answer = able.post("/superres", **fields)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("path", ["/api/v1/generate", "/image/generate", "/v1/jobs"])
def test_scale_is_a_field_of_every_native_form(able: Service, path: str) -> None:
    made = able.post(path, image=IMAGE, scale=2, seed=1).json()
    if path == "/v1/jobs":
        made = until(able, made, "done")
    assert made["meta"]["task"] == "upscale"
    assert (made["meta"]["parameters"]["height"], made["meta"]["parameters"]["width"]) == (48, 64)


def test_the_capabilities_document_tells_who_makes_pictures_larger(able: Service, service: Service) -> None:
    for each, expected in ((able, ["upscale"]), (service, ["text-to-image", "image-to-image", "inpainting"])):
        (model,) = each.http.get("/api/v1/capabilities").json()["models"]
        assert model["tasks"] == expected
        (instance,) = model["instances"]
        assert instance["scales"] == ([2, 4] if expected == ["upscale"] else [])
        assert ("upscale" in instance["cannot"]) == (expected != ["upscale"])


# --- command line


def test_upscale_writes_a_larger_file_by_a_configured_network(folder: Path) -> None:
    compact(folder / "x4.safetensors")
    spandrel = (
        '[[models.large.instances]]\nbackend = "spandrel"\nsource = "./x4.safetensors"\ndevice = "cpu"\n'
    )
    configure(folder, DEMO + spandrel)
    (folder / "in.png").write_bytes(images.encode(varied(24, 32)))
    said = as_object(triptych("upscale", "in.png", "-o", "out.png", "--json"))
    (made,) = said["pictures"]
    assert (made["file"], made["backend"], made["adjustments"]) == ("out.png", "spandrel", [])
    assert size_of((folder / "out.png").read_bytes()) == (96, 128)


def test_upscale_needs_leave_for_lanczos_and_overwrites_nothing_by_itself(folder: Path) -> None:
    (folder / "in.png").write_bytes(images.encode(varied(24, 32)))
    refused = triptych("upscale", "in.png", "--scale", "2")
    assert refused.exit_code == 3
    assert "`upscaler` in `--allow`" in refused.stderr
    for _ in range(2):
        result = triptych("upscale", "in.png", "--scale", "2", "--allow", "upscaler")
        assert result.exit_code == 0
        assert "Lanczos" in result.stderr
    assert pictures_in(folder) == ["in-x2.png", "in-x2_2.png", "in.png"]
    record = json.loads(images.read_metadata((folder / "in-x2.png").read_bytes())["triptych"])
    assert (record["backend"], record["task"]) == ("lanczos", "upscale")


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("absent.png",), "`IN` is 'absent.png'", 3),
        (("in.png", "--scale", "3"), "`--scale` is 3", 3),
        (("in.png", "-o", "out.gif"), "`-o`", 2),
        (("in.png", "--model", "absent"), "no model 'absent'", 3),
    ],
)
def test_upscale_says_what_is_wrong(folder: Path, arguments: tuple[str, ...], said: str, code: int) -> None:
    (folder / "in.png").write_bytes(images.encode(varied(24, 32)))
    result = triptych("upscale", *arguments)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr


def test_check_tries_an_upscaler_too(folder: Path) -> None:
    configure(
        folder,
        '[[models.large.instances]]\nbackend = "fake"\noptions = { tasks = ["upscale"], scales = [2] }\n',
    )
    result = triptych("check", "--json")
    assert result.exit_code == 0
    assert [line["found"].partition(" ")[0] for line in as_object(result)["lines"]][-1] == "128x128"
