"""Pictures by address, over HTTP: in every form, off unless switched on, each refusal by its field."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from router import images
from router.errors import ConfigError
from router.router import BackendRouter
from router.server.app import create_app
from router.server.settings import ServerSettings
from tests.picture_servers import PHOTO, PictureServer, picture_server, reply
from tests.pictures import painted
from tests.services import Service, fake_config, serving

DATA = "data:image/png;base64," + base64.b64encode(PHOTO).decode()
BASE: dict[str, Any] = {"prompt": "a red circle", "seed": 1}
EDIT: dict[str, Any] = {"prompt": "a red circle", "images": [{"image_url": DATA}]}


@pytest.fixture(scope="module")
def pictures() -> Iterator[PictureServer]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(picture_server()) as server:
        server.replies["/large.png"] = reply(images.encode(painted(128, 128)))
        yield server


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, pictures: PictureServer) -> Iterator[Service]:
    """One that fetches from the server of pictures alone."""
    allowed = {"image_urls": True, "image_hosts": (pictures.authority,), "max_input_pixels": 64 * 64}
    with serving(tmp_path_factory.mktemp("urls"), **allowed) as service:
        yield service


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One as it is by default."""
    with serving(tmp_path_factory.mktemp("closed")) as service:
        yield service


def error(service: Service, path: str, **fields: Any) -> tuple[int, str, str]:
    answer = service.post(path, **fields)
    said = answer.json()["error"]
    return answer.status_code, said["param"], said["message"]


@pytest.mark.parametrize("path", ["/api/v1/generate", "/image/generate"])
def test_image_and_mask_by_address(service: Service, pictures: PictureServer, path: str) -> None:
    url = f"http://{pictures.authority}/photo.png"
    meta = service.post(path, **BASE, image_url=url, strength=0.5).json()["meta"]
    assert (meta["task"], meta["parameters"]["width"]) == ("image-to-image", 64)
    assert (
        service.post(path, **BASE, image_url=url, mask_image_url=DATA).json()["meta"]["task"] == "inpainting"
    )


def test_the_other_native_forms_take_addresses_too(service: Service, pictures: PictureServer) -> None:
    url = f"http://{pictures.authority}/photo.png"
    assert service.post("/generate", **BASE, image_url=url).headers["content-type"] == "image/png"
    assert service.post("/api/v1/explain", **BASE, image_url=url).json()["task"] == "image-to-image"


def test_a_job_keeps_what_it_has_fetched(service: Service, pictures: PictureServer) -> None:
    url, before = f"http://{pictures.authority}/photo.png", len(pictures.asked)
    job = service.post("/v1/jobs", **BASE, image_url=url).json()
    assert "image_url" not in job["parameters"]
    while (job := service.http.get(job["url"]).json())["state"] not in ("done", "failed"):
        time.sleep(0.01)
    assert (job["state"], job["meta"]["task"]) == ("done", "image-to-image")
    assert len(pictures.asked) == before + 1


def test_a_repeated_job_is_found_though_its_picture_is_gone(
    service: Service, pictures: PictureServer
) -> None:
    pictures.replies["/brief.png"] = reply(PHOTO)
    body = BASE | {"image_url": f"http://{pictures.authority}/brief.png"}
    headers = {"Idempotency-Key": "brief"}
    first = service.http.post("/v1/jobs", json=body, headers=headers)
    del pictures.replies["/brief.png"]
    second = service.http.post("/v1/jobs", json=body, headers=headers)
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json()["id"] == first.json()["id"]


def test_openai_edits_as_json(service: Service, pictures: PictureServer) -> None:
    url = f"http://{pictures.authority}/photo.png"
    made = service.post("/v1/images/edits", prompt="a red circle", images=[{"image_url": url}]).json()
    assert made["meta"]["task"] == "image-to-image"
    made = service.post("/v1/images/edits", **EDIT, mask={"image_url": url}, size="64x64").json()
    assert made["meta"]["task"] == "inpainting"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"images": []}, "images"),
        ({"images": [{"image_url": DATA}] * 2}, "images"),
        ({"images": {"image_url": DATA}}, "images"),
        ({"images": ["x"]}, "images.0"),
        ({"images": [{"image_url": DATA, "detail": "high"}]}, "images.0"),
        ({"images": [{"file_id": "file-1"}]}, "images.0.file_id"),
        ({"images": [{"image_url": 1}]}, "images.0.image_url"),
        ({"mask": {"file_id": "file-1"}}, "mask.file_id"),
        ({"mask": {"image_url": "data:image/png;base64,AAAA"}}, "mask.image_url"),
        ({"mask": DATA}, "mask"),
    ],
)
def test_what_is_wrong_in_such_an_edit_is_named(closed: Service, fields: dict[str, Any], param: str) -> None:
    status, named, said = error(closed, "/v1/images/edits", **EDIT | fields)
    assert (status, named) == (400, param)
    assert f"`{param}`" in said


def test_off_a_data_url_is_taken_and_an_address_is_not(closed: Service, pictures: PictureServer) -> None:
    url, before = f"http://{pictures.authority}/photo.png", len(pictures.asked)
    assert closed.post("/image/generate", **BASE, image_url=DATA).json()["meta"]["task"] == "image-to-image"
    for path in ("/api/v1/generate", "/image/generate", "/generate", "/api/v1/explain", "/v1/jobs"):
        for param in ("image_url", "mask_image_url"):
            status, named, said = error(closed, path, **BASE, **{param: url})
            assert (status, named) == (400, param)
            assert "`image_urls = true`" in said
    assert error(closed, "/v1/images/edits", **EDIT | {"images": [{"image_url": url}]})[0] == 400
    assert len(pictures.asked) == before
    assert closed.http.get("/api/v1/capabilities").json()["image_urls"] is False


@pytest.mark.parametrize("path", ["/image/generate", "/v1/jobs"])
@pytest.mark.parametrize(
    ("picture", "said"),
    [
        ("/page.html", "neither PNG, JPEG nor WebP"),
        ("/large.png", "4,096 pixels at most"),
        ("/missing", "status 404"),
        ("/compressed", "compressed"),
    ],
)
def test_what_lies_there_has_the_limits_of_what_is_sent(
    service: Service, pictures: PictureServer, path: str, picture: str, said: str
) -> None:
    url = f"http://{pictures.authority}{picture}"
    status, param, message = error(service, path, **BASE, image_url=url)
    assert (status, param) == (400, "image_url")
    assert said in message


def test_an_address_stands_alone_and_in_its_own_field(service: Service) -> None:
    assert error(service, "/generate", **BASE, image=DATA, image_url=DATA)[1] == "image_url"
    assert error(service, "/generate", **BASE, image_url=1)[1] == "image_url"
    status, param, said = error(service, "/generate", **BASE, image="https://pictures.example/a.png")
    assert (status, param) == (400, "image")
    assert "`image_url` is for addresses" in said


# --- switching it on


def test_hosts_without_the_switch_are_a_mistake(tmp_path: Path) -> None:
    from router.server.settings import load_server_settings

    environ = {"TRIPTYCH_SERVER_IMAGE_HOSTS": "pictures.example, 127.0.0.1:9000"}
    with pytest.raises(ConfigError, match=r"set `server.image_urls` to true"):
        load_server_settings(environ=environ, directory=tmp_path)
    settings = load_server_settings(
        environ=environ | {"TRIPTYCH_SERVER_IMAGE_URLS": "true"}, directory=tmp_path
    )
    assert settings.image_hosts == ("pictures.example", "127.0.0.1:9000")
    for wrong in ("https://pictures.example", "Pictures.example", "pictures.example/path", "a b"):
        with pytest.raises(ConfigError, match="IMAGE_HOSTS"):
            load_server_settings(environ={"TRIPTYCH_SERVER_IMAGE_HOSTS": wrong}, directory=tmp_path)


def test_a_missing_library_is_a_sentence_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpcore2", None)
    for name in ("fetch", "checked_network"):
        monkeypatch.delitem(sys.modules, f"router.server.{name}", raising=False)
    create_app(BackendRouter(fake_config()), ServerSettings())
    with pytest.raises(ConfigError, match=r"needs httpcore2, .* pip install 'triptych\[server\]'"):
        create_app(BackendRouter(fake_config()), ServerSettings(image_urls=True))


def test_what_is_off_is_not_imported() -> None:
    code = "import sys, router.server.app; print('httpcore2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
