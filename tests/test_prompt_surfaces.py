"""Long prompts and weights where users meet them, and the backends that refuse them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router import images
from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.errors import InvalidRequestError
from tests import onnx_doubles, triton_instances
from tests.command_line import DEMO, as_object, configure, triptych
from tests.diffusers_doubles import Lanes
from tests.exports import Exports
from tests.miniatures import SIDE, miniature
from tests.services import Service, serving
from tests.test_long_prompts import LONG, asked

OPTIONS = ("--size", f"{SIDE}x{SIDE}", "--steps", "2", "--seed", "3", "-o", "out.png", "--json")
FIELDS: dict[str, Any] = {"width": SIDE, "height": SIDE, "num_inference_steps": 2, "seed": 3}
FOR_LONG = {"long_prompt": "chunk"}
FOR_WEIGHTS = {"prompt_weighting": True}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, miniatures: Path) -> Iterator[Service]:
    source = str(miniature("sd15", miniatures))
    instances = (
        InstanceConfig(name="m/fake", backend="fake"),
        InstanceConfig(name="m/diffusers", backend="diffusers", source=source, device="cpu"),
    )
    config = RouterConfig(models=(ModelConfig(name="m", instances=instances),), default_model="m")
    with serving(tmp_path_factory.mktemp("prompts"), config) as service:
        yield service


def test_the_command_line_reads_long_prompts_and_weights(folder: Path, miniatures: Path) -> None:
    source = miniature("sd15", miniatures)
    configure(folder, f'[[models.m.instances]]\nbackend = "diffusers"\nsource = "{source}"\ndevice = "cpu"\n')
    both = ("--long-prompt", "chunk", "--prompt-weighting")
    (picture,) = as_object(triptych("generate", f"(red:1.4) {LONG}", *both, *OPTIONS))["pictures"]
    parameters = picture["parameters"]
    assert (parameters["long_prompt"], parameters["prompt_weighting"]) == ("chunk", True)
    refused = triptych("generate", LONG, *OPTIONS)
    assert refused.exit_code == 3
    assert "has 232 tokens" in refused.output
    assert "set `--long-prompt` to" in refused.output


def test_the_command_line_explains_who_reads_them(folder: Path) -> None:
    configure(folder, DEMO)
    for option in (("--long-prompt", "chunk"), ("--prompt-weighting",)):
        said = triptych("explain", "a red circle", *option)
        assert said.exit_code == 3
        assert f"`{option[0]}` can" in said.output
    assert "must be 'refuse' or 'chunk'" in triptych("explain", "a", "--long-prompt", "cut").output


def test_over_http_the_instance_serves_that_can(service: Service) -> None:
    made = service.post("/api/v1/generate", prompt=LONG, **FIELDS, **FOR_LONG).json()
    assert made["meta"]["instance"] == "m/diffusers"
    pictures = [
        service.http.get(
            service.post("/api/v1/generate", prompt=prompt, **FIELDS, **FOR_WEIGHTS).json()["image_url"]
        ).content
        for prompt in ("a (red:1.5) circle", "a red circle")
    ]
    assert pictures[0] != pictures[1]
    explained = service.post("/api/v1/explain", prompt="a", **FIELDS, **FOR_WEIGHTS).json()
    assert explained["candidates"] == ["m/diffusers"]
    assert explained["rejections"]["m/fake"].startswith("`prompt_weighting` cannot be had")


def test_over_openai_s_form_too(service: Service) -> None:
    asked_for = {"prompt": LONG, "size": f"{SIDE}x{SIDE}", "num_inference_steps": 2, **FOR_LONG}
    assert service.post("/v1/images/generations", **asked_for).json()["meta"]["instance"] == "m/diffusers"
    picture = images.encode(images.RawImage(SIDE, SIDE, bytes(SIDE * SIDE * 3)))
    form = {"prompt": LONG, "num_inference_steps": "4", "long_prompt": "chunk", "prompt_weighting": "true"}
    edited = service.http.post("/v1/images/edits", data=form, files={"image": ("a.png", picture)}).json()
    assert edited["meta"]["parameters"]["long_prompt"] == "chunk"


def test_over_http_a_long_prompt_is_refused_with_its_tokens(service: Service) -> None:
    only = service.post("/api/v1/generate", prompt=LONG, **FIELDS, **FOR_WEIGHTS)
    assert only.status_code == 400
    error = only.json()["error"]
    assert error["param"] == "prompt"
    assert "232 tokens" in error["message"]
    assert LONG not in only.text


async def test_exports_refuse_both_and_count_tokens(exports: Exports, lanes: Lanes) -> None:
    backend = onnx_doubles.make(lanes, exports("sd15"))
    found = await backend.probe()
    for fields in (FOR_LONG, FOR_WEIGHTS):
        assert "its graphs take a text of fixed length" in (found.why_not(asked("a", **fields)) or "")
    await backend.load()
    with pytest.raises(InvalidRequestError, match=r"`prompt` has 232 tokens .* reads 77; shorten it\.$"):
        await onnx_doubles.generate(backend, prompt=LONG)


async def test_a_triton_server_refuses_both(lanes: Lanes) -> None:
    async with triton_instances.serving(lanes) as double:
        found = await triton_instances.remote(double.url).probe()
    for fields in (FOR_LONG, FOR_WEIGHTS):
        why = found.why_not(triton_instances.request(**fields)) or ""
        assert "it takes prompts as they are and encodes them elsewhere" in why
