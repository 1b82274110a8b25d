"""LoRAs asked for from Python, the command line, over HTTP and as a job; listed wherever models are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from router import BackendRouter
from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.errors import ConfigError, NoRouteError
from router.settings import load_config
from tests import headers
from tests.command_line import as_object, configure, triptych
from tests.miniatures import miniature
from tests.services import Service, fake_config, serving

FAKE = '[[models.demo.instances]]\nbackend = "fake"\noptions = { loras = ["ink", "oil"] }\n'
LAYER = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
ASKED = [{"name": "oil", "weight": -0.5}, {"name": "ink", "weight": 1.0}]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("loras"), fake_config(loras=["ink", "oil"])) as service:
        yield service


def lora_file(file: Path, width: int) -> Path:
    shapes = {f"{LAYER}.lora_A.weight": (4, width), f"{LAYER}.lora_B.weight": (32, 4)}
    file.parent.mkdir(exist_ok=True)
    return headers.checkpoint(file, shapes)


# --- asked for


async def test_python_takes_loras_and_refuses_what_is_not_there() -> None:
    async with BackendRouter(fake_config(loras=["ink", "oil"])) as router:
        result = await router.generate(prompt="x", loras=ASKED)
        assert [(lora.name, lora.weight) for lora in result.request.loras] == [("oil", -0.5), ("ink", 1.0)]
        with pytest.raises(NoRouteError, match="it has no LoRA 'wax'; it has ink, oil"):
            await router.generate(prompt="x", loras=[{"name": "wax"}])


@pytest.mark.parametrize("backend", ["fake", "fixed"])
async def test_an_instance_without_loras_is_passed_over(backend: str) -> None:
    options = {"fake": {}, "fixed": {"profiles": ["64x64"]}}[backend]
    able = InstanceConfig(name="able", backend="fake", options={"loras": ["ink"]})
    first = InstanceConfig(name="first", backend="fake", options=options)
    models = (ModelConfig(name="m", instances=(first, able)),)
    async with BackendRouter(RouterConfig(models=models, default_model="m")) as router:
        assert (await router.generate(prompt="x", loras=[{"name": "ink"}])).instance == "able"
        assert (await router.generate(prompt="x")).instance == "first"


def test_the_command_line_takes_names_with_and_without_a_weight(folder: Path) -> None:
    configure(folder, FAKE)
    made = as_object(
        triptych("generate", "x", "--lora", "oil:-0.5", "--lora", "ink", "-o", "a.png", "--json")
    )
    assert made["pictures"][0]["parameters"]["loras"] == ASKED
    refused = triptych("generate", "x", "--lora", "wax")
    assert refused.exit_code != 0
    assert "it has no LoRA 'wax'; it has ink, oil." in refused.output
    assert "`--lora` names 'ink' twice" in triptych("generate", "x", *["--lora", "ink"] * 2).output
    assert "write NAME or NAME:WEIGHT" in triptych("generate", "x", "--lora", "ink:much").output


@pytest.mark.parametrize("path", ["/api/v1/generate", "/image/generate"])
def test_the_native_forms_take_loras(path: str, service: Service) -> None:
    made = service.post(path, prompt="x", loras=ASKED)
    assert made.status_code == 200, made.text
    plain = service.post(path, prompt="x", loras=[{"name": "../ink"}])
    assert plain.status_code == 400
    assert "it has ink, oil" in plain.json()["error"]["message"]


def test_openais_form_takes_them_beside_its_own_fields(service: Service) -> None:
    made = [
        service.post("/v1/images/generations", prompt="x", seed=3, **more).json()["data"][0]["b64_json"]
        for more in ({}, {"loras": ASKED}, {"loras": ASKED[::-1]})
    ]
    assert made[0] != made[1]
    refused = service.post("/v1/images/generations", prompt="x", loras=[{"name": "ink", "weight": "high"}])
    assert refused.json()["error"]["param"] == "loras.0.weight"


def test_a_job_keeps_its_loras(service: Service) -> None:
    job = service.post("/v1/jobs", prompt="x", loras=ASKED).json()
    with service.http.stream("GET", f"/v1/jobs/{job['id']}/events") as events:
        events.read()
    meta = service.http.get(f"/v1/jobs/{job['id']}").json()["meta"]
    assert meta["parameters"]["loras"] == ASKED


# --- listed


def test_the_capabilities_document_lists_them(service: Service) -> None:
    (model,) = service.http.get("/api/v1/capabilities").json()["models"]
    (instance,) = model["instances"]
    assert instance["loras"] == ["ink", "oil"]
    assert instance["lora_facts"][0] == {
        "name": "ink",
        "family": "fake",
        "width": None,
        "rank": None,
        "size_bytes": 0,
        "parameters": 0,
        "why_not": "",
    }


@pytest.mark.parametrize("command", ["models", "backends"])
def test_each_is_listed_with_what_it_was_made_for_and_why_not(
    command: str, folder: Path, miniatures: Path
) -> None:
    lora_file(folder / "loras/ink.safetensors", 32)
    lora_file(folder / "loras/oil.safetensors", 2048)
    model = miniature("sd15", miniatures)
    configure(
        folder,
        f'lora_folders = ["loras"]\n[[models.m.instances]]\nbackend = "diffusers"\nsource = "{model}"\n'
        'device = "cpu"\n',
    )
    said = triptych(command).stdout
    assert "LoRAs" in said
    assert "stable-diffusion-xl, width 2048, rank 4" in said
    assert "was made for text of width 2048" in said
    told = as_object(triptych(command, "--json"))
    found = json.dumps(told)
    assert '"name": "ink"' in found
    assert '"size_bytes": 16640' in found
    refused = triptych("generate", "x", "--lora", "oil")
    assert refused.exit_code != 0
    assert "LoRA 'oil' was made for text of width 2048" in refused.output
    assert "those that fit: ink." in refused.output


# --- configured


def test_folders_are_an_instances_a_models_or_the_files_own(tmp_path: Path) -> None:
    for name in ("common", "model", "one", "named"):
        (tmp_path / name).mkdir()
    file = tmp_path / "triptych.toml"
    file.write_text(
        'lora_folders = ["common"]\n[[models.a.instances]]\nbackend = "fake"\n'
        '[models.b]\nlora_folders = ["./model"]\n[[models.b.instances]]\nbackend = "fake"\n'
        '[[models.b.instances]]\nbackend = "fake"\nlora_folders = ["one", "common"]\n'
    )

    def folders(**environ: str) -> list[list[str]]:
        config = load_config(environ=environ, directory=tmp_path)
        instances = [instance for model in config.models for instance in model.instances]
        return [[Path(folder).name for folder in instance.lora_folders] for instance in instances]

    assert folders() == [["common"], ["model"], ["one", "common"]]
    assert folders(TRIPTYCH_LORAS="named, common") == [["named", "common"]] * 3
    with pytest.raises(ConfigError, match="TRIPTYCH_LORAS names 'absent', which is no folder"):
        folders(TRIPTYCH_LORAS="absent")
    (tmp_path / "common").rmdir()
    with pytest.raises(ConfigError, match=r"triptych\.toml: `lora_folders` names 'common'"):
        folders()
