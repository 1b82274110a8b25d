"""Models in the file: source, type, description; a default, and what stands in where it is missing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from router.config import RouterConfig
from router.errors import ConfigError
from router.router import BackendRouter
from router.settings import load_config
from router.types import GenerateResult
from tests.command_line import as_object, configure, triptych
from tests.configurations import instances, make_model, read, refused
from tests.miniatures import miniature
from tests.services import serving

STAND_IN = """
default_model = "photo"
fallback_model = true

[models.photo]
source = "./models/photo"

[models.sketch]
source = "./models/sketch"

[[models.demo.instances]]
backend = "fake"
"""
SAID = "The default model 'photo' is not there ({}); 'demo' serves in its place, as `fallback_model` allows."
TYPED = '[models.demo]\ntype = "{}"\n[[models.demo.instances]]\nbackend = "fake"\n'


def row(output: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(model for model in output["models"] if model["name"] == name)
    return found


# --- entries


def test_a_source_alone_is_an_instance(tmp_path: Path) -> None:
    place = make_model(tmp_path / "weights")
    config = read(tmp_path, '[models.photo]\nsource = "weights"\ndescription = "d"\nlicence = "MIT"')
    photo = config.models[0]
    assert instances(config, "photo") == ["photo/diffusers"]
    assert (photo.instances[0].source, photo.description, photo.licence) == (str(place), "d", "MIT")


def test_a_source_is_that_of_the_instances_that_name_none(tmp_path: Path) -> None:
    text = """
    [models.photo]
    source = "./weights"
    [[models.photo.instances]]
    backend = "diffusers"
    [[models.photo.instances]]
    backend = "onnxruntime"
    source = "./export"
    """
    found = read(tmp_path, text).models[0].instances
    assert [Path(each.source).name for each in found] == ["weights", "export"]


def test_a_table_without_instances_and_source_is_refused(tmp_path: Path) -> None:
    assert "`models.photo.instances` is missing" in refused(tmp_path, '[models.photo]\nlicence = "MIT"')


@pytest.mark.parametrize("size", ['size = "m"', 'size = "80x64"'])
def test_a_default_size_is_by_name_or_in_pixels(folder: Path, size: str) -> None:
    configure(folder, f'[[models.demo.instances]]\nbackend = "fake"\n[models.demo.defaults]\n{size}')
    parameters = as_object(triptych("explain", "x", "--json"))["routes"][0]["parameters"]
    assert (parameters["width"], parameters["height"]) == ((48, 48) if '"m"' in size else (80, 64))


def test_a_default_size_beside_sides_is_refused(tmp_path: Path) -> None:
    text = '[models.photo]\nsource = "weights"\ndefaults = { size = "m", height = 64 }'
    assert "Give `size`, or `height` and `width`, not both" in refused(tmp_path, text).replace("give", "Give")


# --- type


async def generate(config: RouterConfig) -> GenerateResult:
    async with BackendRouter(config) as router:
        return await router.generate(prompt="a")


@pytest.mark.parametrize("type", ["sdxl", "stable-diffusion-xl"])
def test_a_model_of_another_type_is_refused_with_the_cure(tmp_path: Path, type: str) -> None:
    with pytest.raises(ConfigError) as caught:
        asyncio.run(generate(read(tmp_path, TYPED.format(type))))
    said = f"demo/fake: `models.demo.type` is {type!r}, but its source is fake; correct `type` or `source`."
    assert str(caught.value) == said


def test_a_model_of_its_type_serves(tmp_path: Path) -> None:
    assert asyncio.run(generate(read(tmp_path, TYPED.format("fake")))).images


def test_models_shows_type_mistakes_and_descriptions(folder: Path, miniatures: Path) -> None:
    source = miniature("sd15", miniatures)
    text = f'[models.photo]\nsource = "{source}"\ntype = "{{}}"\ndescription = "Photographs"\n'
    configure(folder, text.format("sd15"))
    assert "Photographs" in triptych("models").stdout
    configure(folder, text.format("flux"))
    (entry,) = row(as_object(triptych("models", "--json")), "photo")["entries"]
    assert entry["error"] == (
        "`models.photo.type` is 'flux', but its source is stable-diffusion; correct `type` or `source`."
    )


# --- the default model


def test_with_leave_the_first_model_that_is_there_stands_in_and_all_say_so(folder: Path) -> None:
    configure(folder, STAND_IN)
    said = SAID.format(folder / "models/photo")
    made = triptych("generate", "a circle", "-o", "a.png")
    assert (made.exit_code, f"note: {said}" in made.stderr) == (0, True)
    listed = triptych("models")
    assert f"note: {said}" in listed.stderr
    assert row(as_object(triptych("models", "--json")), "demo")["stands_in"] == said
    assert as_object(triptych("models", "--json"))["default_model"] == "demo"


def test_over_http_the_reply_says_so_to_those_who_name_no_model(folder: Path) -> None:
    configure(folder, STAND_IN)
    with serving(folder, load_config()) as service:
        unnamed = service.post("/api/v1/generate", prompt="a").json()["meta"]
        named = service.post("/api/v1/generate", prompt="a", model="demo").json()["meta"]
        raw = service.post("/image/generate", prompt="a").json()["meta"]
        missing = service.post("/api/v1/generate", prompt="a", model="photo")
    said = SAID.format(folder / "models/photo")
    assert (unnamed["model"], unnamed["notes"], named["notes"], raw["notes"]) == ("demo", [said], [], [said])
    assert missing.status_code >= 400


def test_without_leave_a_missing_default_is_an_error_with_the_cure(folder: Path) -> None:
    configure(folder, STAND_IN.replace("fallback_model = true", ""))
    refusal = triptych("generate", "a circle", "-o", "a.png")
    assert refusal.exit_code != 0
    assert "correct `source`" in refusal.stderr
    assert as_object(triptych("models", "--json"))["default_model"] == "photo"


def test_the_variable_goes_before_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(folder, STAND_IN)
    monkeypatch.setenv("TRIPTYCH_FALLBACK_MODEL", "0")
    assert load_config().default_model == "photo"


def test_a_default_that_is_there_or_may_be_stays(tmp_path: Path) -> None:
    make_model(tmp_path / "models/photo")
    assert read(tmp_path, STAND_IN).default_model == "photo"
    for source in ("someone/photo", "shipped:shapes", "grpc://host:8001/photo"):
        text = STAND_IN.replace('"./models/photo"', f'"{source}"')
        assert read(tmp_path, text).default_model == "photo", source


def test_a_relative_source_is_a_path_where_its_folder_is_there(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for source in ("models/photo", "models/photo.safetensors"):
        config = read(tmp_path, STAND_IN.replace('"./models/photo"', f'"{source}"'))
        assert (config.default_model, config.models[-1].stands_in) == ("demo", SAID.format(source))


def test_where_none_is_there_the_default_stays(tmp_path: Path) -> None:
    text = STAND_IN[: STAND_IN.index("[[models.demo")]
    assert read(tmp_path, text).default_model == "photo"


def test_a_servers_address_is_a_model_too(tmp_path: Path) -> None:
    config = read(tmp_path, model="grpc://host:8001/photo")
    assert instances(config, config.default_model) == ["photo/triton"]
    assert config.models[0].instances[0].source == "grpc://host:8001/photo"
