"""OpenAI's own client against the service on a socket: it is understood, and it parses the replies."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from PIL import Image

from router import images
from tests.pictures import painted, saved
from tests.services import KEY, Service, fake_config, serving

PROMPT = "a red circle"
PHOTO = ("photo.png", images.encode(painted(64, 64)))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("openai")
    with serving(folder, fake_config(steps=4), keys=(KEY,)) as service:
        yield service


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def opened(text: str | None) -> Image.Image:
    assert text is not None
    return Image.open(io.BytesIO(base64.b64decode(text)))


# --- pictures


def test_generate(client: openai.OpenAI) -> None:
    reply = client.images.generate(model="demo", prompt=PROMPT, n=2, size="96x64")
    assert reply.data is not None
    assert [opened(image.b64_json).size for image in reply.data] == [(96, 64), (96, 64)]
    assert (reply.size, reply.output_format, reply.background) == ("96x64", "png", "opaque")


def test_generate_in_another_format_and_the_models_own_size(client: openai.OpenAI) -> None:
    reply = client.images.generate(prompt=PROMPT, size="auto", output_format="webp", output_compression=50)
    assert reply.data is not None
    picture = opened(reply.data[0].b64_json)
    assert (picture.format, picture.size) == ("WEBP", (64, 64))


def test_our_own_fields_are_extras_both_ways(client: openai.OpenAI) -> None:
    extras = {"seed": 7, "num_inference_steps": 3, "negative_prompt": "blur"}
    first, second = (client.images.generate(prompt=PROMPT, extra_body=extras) for _ in range(2))
    meta = first.to_dict()["meta"]
    assert isinstance(meta, dict)
    assert (meta["seed"], meta["instance"], meta["backend"]) == (7, "demo/fake", "fake")
    assert meta["parameters"] | extras == meta["parameters"]
    assert first.data == second.data


def test_neutral_values_are_taken_and_listed(client: openai.OpenAI) -> None:
    reply = client.images.generate(
        prompt=PROMPT, user="somebody", quality="auto", background="auto", moderation="auto"
    )
    listed = reply.to_dict()["without_effect"]
    assert sorted(str(name) for name in listed) == ["background", "moderation", "quality", "user"]  # type: ignore[attr-defined]


def test_a_url_is_fetched_without_a_key(client: openai.OpenAI) -> None:
    reply = client.images.generate(prompt=PROMPT, response_format="url")
    assert reply.data is not None
    url = reply.data[0].url
    assert url is not None
    fetched = httpx.get(url)
    assert fetched.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(fetched.content)).size == (64, 64)
    assert httpx.get(url.partition("?")[0]).status_code == 401


def test_edit(client: openai.OpenAI, service: Service) -> None:
    reply = client.images.edit(image=PHOTO, prompt=PROMPT, extra_body={"strength": 0.5, "seed": 1})
    meta = reply.to_dict()["meta"]
    assert isinstance(meta, dict)
    assert (meta["task"], meta["parameters"]["strength"]) == ("image-to-image", 0.5)


def test_edit_with_a_transparent_mask(client: openai.OpenAI) -> None:
    hole = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    hole.paste((0, 0, 0, 0), (0, 0, 32, 64))
    mask = ("mask.png", saved(hole, "PNG"))
    reply = client.images.edit(image=[PHOTO], mask=mask, prompt=PROMPT)
    meta = reply.to_dict()["meta"]
    assert isinstance(meta, dict)
    assert meta["task"] == "inpainting"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of variations, at OpenAI
def test_variation(client: openai.OpenAI) -> None:
    reply = client.images.create_variation(image=PHOTO, n=2)
    assert reply.data is not None
    assert len(reply.data) == 2


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").owned_by == "triptych"


# --- errors


def test_a_wrong_key_is_an_authentication_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="another-key-0123456789").models.list()


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.images.generate(model="dall-e-2", prompt=PROMPT)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"size": "1024"}, "size"),
        ({"size": "64x16000"}, "size"),
        ({"size": "60x64"}, "size"),
        ({"n": 0}, "n"),
        ({"quality": "hd"}, "quality"),
        ({"background": "transparent"}, "background"),
        ({"style": "vivid"}, "style"),
        ({"output_format": "gif"}, "output_format"),
        ({"output_format": "jpeg", "output_compression": 101}, "output_compression"),
        ({"response_format": "file"}, "response_format"),
        ({"extra_body": {"partial_images": 2}}, "partial_images"),
        ({"extra_body": {"seeed": 1}}, "seeed"),
        ({"extra_body": {"height": 64}}, "height"),
        ({"extra_body": {"seed": "1"}}, "seed"),
        ({"prompt": " "}, "prompt"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    client: openai.OpenAI, fields: dict[str, object], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**{"prompt": PROMPT} | fields)  # type: ignore[call-overload]
    assert caught.value.param == param
    assert f"`{param}`" in caught.value.message


def test_pictures_are_refused_by_the_clients_names(client: openai.OpenAI, service: Service) -> None:
    small = ("mask.png", images.encode(painted(32, 32)))
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(image=PHOTO, mask=small, prompt=PROMPT)
    assert caught.value.param == "mask"
    with pytest.raises(openai.BadRequestError, match="2 times") as caught:
        client.images.edit(image=[PHOTO, PHOTO], prompt=PROMPT)
    assert caught.value.param == "image"
    form = {"prompt": (None, PROMPT), "image": (None, "text")}
    text = service.http.post("/v1/images/edits", files=form, headers={"X-API-Key": KEY})
    assert text.json()["error"]["param"] == "image"
    assert "must be a file" in text.json()["error"]["message"]
    with pytest.raises(openai.BadRequestError, match="neither PNG") as caught:
        client.images.edit(image=("photo.png", b"nothing"), prompt=PROMPT)
    assert caught.value.param == "image"


def test_a_full_queue_is_a_rate_limit_error(tmp_path: Path) -> None:
    limits = {"concurrency": 1, "queue": 0}
    with serving(tmp_path, fake_config(limits, step_s=0.2)) as service:
        client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0)
        running = client.images.generate(prompt=PROMPT, stream=True)
        with running, pytest.raises(openai.RateLimitError) as caught:
            client.images.generate(prompt=PROMPT)
        assert caught.value.code == "queue_full"
        assert int(caught.value.response.headers["retry-after"]) >= 1
        client.close()
