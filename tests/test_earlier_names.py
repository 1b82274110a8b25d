"""Names that earlier systems had, at the jobs endpoint and in the native forms; bad reference pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from PIL import Image

from router import images
from tests.jobs_doubles import until
from tests.picture_servers import PHOTO, PictureServer, picture_server, reply
from tests.pictures import painted, png, saved
from tests.services import Service, fake_config, serving

BASE: dict[str, Any] = {"prompt": "a red circle", "seed": 1}
BODIES = ("/api/v1/generate", "/image/generate", "/v1/jobs")
FRAMES = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]


@pytest.fixture(scope="module")
def server() -> Iterator[PictureServer]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(picture_server()) as server:
        server.replies |= {
            "/gone.png": reply(b"", 404),
            "/corrupt.png": reply(PHOTO[:-20]),
            "/large.png": reply(images.encode(painted(128, 128))),
            "/hollow.png": reply(png(60_000, 60_000)),
            "/animated.webp": reply(saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:])),
            "/empty.png": reply(b""),
        }
        yield server


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, server: PictureServer) -> Iterator[Service]:
    allowed = {"image_urls": True, "image_hosts": (server.authority,), "max_input_pixels": 64 * 64}
    config = fake_config(schedulers=("DDIM", "DPMSolverMultistep"))
    with serving(tmp_path_factory.mktemp("earlier"), config, **allowed) as service:
        yield service


def parameters(service: Service, path: str, **fields: Any) -> dict[str, Any]:
    """What the body became."""
    answer = service.post(path, **BASE, **fields)
    assert answer.status_code in (200, 202), answer.text
    made = answer.json()
    if path == "/v1/jobs":
        made = until(service, made, "done")
    found: dict[str, Any] = made["meta"]["parameters"] | {"mode": made["meta"]["reference_mode"]}
    return found


# --- earlier names


@pytest.mark.parametrize("path", BODIES)
def test_an_earlier_body_is_understood(service: Service, server: PictureServer, path: str) -> None:
    found = parameters(
        service,
        path,
        reference_image_url=f"http://{server.authority}/photo.png",
        reference_strength=0.25,
        batch_size=3,
        steps=8,
        exact_copy_mode=False,
    )
    expected = {"num_images_per_prompt": 3, "num_inference_steps": 8, "strength": 0.75, "mode": "modify"}
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("path", BODIES)
def test_exact_copy_mode_copies_the_reference(service: Service, server: PictureServer, path: str) -> None:
    url = f"http://{server.authority}/photo.png"
    found = parameters(service, path, reference_image_url=url, exact_copy_mode=True)
    expected = {"strength": 0.05, "guidance_scale": 1.0, "num_inference_steps": 20, "mode": "copy"}
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(("job_type", "steps"), [("sdxl_image_fast", 15), ("sdxl_image_high", 40)])
def test_job_types_are_presets(service: Service, job_type: str, steps: int) -> None:
    assert parameters(service, "/v1/jobs", job_type=job_type)["num_inference_steps"] == steps
    assert parameters(service, "/v1/jobs", job_type=job_type, steps=3)["num_inference_steps"] == 3


def test_the_bytes_come_by_earlier_names_too_with_the_mode_in_a_header(service: Service) -> None:
    made = service.post("/generate", **BASE, steps=3, batch_size=1)
    assert (made.status_code, made.headers["x-triptych-reference-mode"]) == (200, "none")
    photo = base64.b64encode(PHOTO).decode()
    for fields, mode in (({"strength": 0.5}, "modify"), ({"exact_copy_mode": True}, "copy")):
        made = service.post("/generate", **BASE, image=photo, **fields)
        assert made.headers["x-triptych-reference-mode"] == mode
    error = service.post("/generate", **BASE, batch_size=2).json()["error"]
    assert error["param"] == "batch_size"


def test_a_repetition_under_other_names_is_the_same_job(service: Service) -> None:
    headers = {"Idempotency-Key": "one"}
    first = service.http.post("/v1/jobs", json=BASE | {"steps": 3}, headers=headers)
    again = service.http.post("/v1/jobs", json=BASE | {"num_inference_steps": 3}, headers=headers)
    assert first.json()["id"] == again.json()["id"]


@pytest.mark.parametrize("path", [*BODIES, "/generate", "/api/v1/explain"])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"steps": 3, "num_inference_steps": 4}, "steps"),
        ({"batch_size": 1, "num_images_per_prompt": 2}, "batch_size"),
        ({"job_type": "sdxl_image_fast", "preset": "high"}, "job_type"),
        ({"job_type": "sdxl_video"}, "job_type"),
        ({"job_type": 3}, "job_type"),
        ({"steps": "many"}, "steps"),
        ({"exact_copy_mode": True}, "exact_copy_mode"),
    ],
)
def test_two_names_with_two_values_and_wrong_values_are_a_400(
    service: Service, path: str, fields: dict[str, Any], param: str
) -> None:
    answer = service.post(path, **BASE, **fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert f"`{param}`" in error["message"]


def test_two_names_with_one_value_are_fine(service: Service) -> None:
    assert parameters(service, "/v1/jobs", steps=3, num_inference_steps=3)["num_inference_steps"] == 3
    assert service.post("/generate", **BASE, steps=None).status_code == 200


# --- a bad reference is never passed over


@pytest.mark.parametrize(
    "name",
    ["gone.png", "page.html", "corrupt.png", "large.png", "hollow.png", "animated.webp", "empty.png", "cut"],
)
@pytest.mark.parametrize("path", [*BODIES, "/generate"])
def test_a_bad_reference_is_an_error_and_no_picture_is_made(
    service: Service, server: PictureServer, path: str, name: str
) -> None:
    before = service.calls("generate")
    answer = service.post(path, **BASE, reference_image_url=f"http://{server.authority}/{name}")
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "reference_image_url")
    assert "`reference_image_url`" in error["message"]
    assert service.calls("generate") == before


@pytest.mark.parametrize("url", ["", "photo.png", "file:///etc/passwd", "http://127.0.0.1:9/a.png", 7])
def test_an_address_that_leads_nowhere_is_an_error_too(service: Service, url: object) -> None:
    answer = service.post("/v1/jobs", **BASE, reference_image_url=url)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "reference_image_url")


@pytest.mark.parametrize(
    "image", ["", "%%%", base64.b64encode(PHOTO[:-20]).decode(), base64.b64encode(b"GIF89a").decode()]
)
def test_a_bad_picture_in_the_body_is_an_error_too(service: Service, image: str) -> None:
    before = service.calls("generate")
    for path in BODIES:
        answer = service.post(path, **BASE, image=image)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image")
    assert service.calls("generate") == before


def test_addresses_are_not_fetched_where_nobody_allowed_it(
    tmp_path_factory: pytest.TempPathFactory, server: PictureServer
) -> None:
    before = len(server.asked)
    with serving(tmp_path_factory.mktemp("closed")) as closed:
        url = f"http://{server.authority}/photo.png"
        answer = closed.post("/v1/jobs", **BASE, reference_image_url=url)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "reference_image_url")
        data = f"data:image/png;base64,{base64.b64encode(PHOTO).decode()}"
        assert closed.post("/v1/jobs", **BASE, reference_image_url=data).status_code == 202
    assert len(server.asked) == before
