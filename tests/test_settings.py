"""load_config: what the file says, which file it is, and where models come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.settings import load_config
from tests.configurations import PHOTO, instances, make_model, names, read

# --- the file


def test_reads_every_table_of_the_file(tmp_path: Path) -> None:
    config = read(tmp_path, PHOTO)
    photo = config.model("photo")
    assert photo is not None
    assert (config.default_model, config.deadline_s) == ("photo", 60)
    assert (config.limits.max_height, config.limits.queue, config.limits.max_width) == (1024, 5, 2048)
    assert config.breaker.failures == 7
    assert config.device_memory == {"cpu": 2 * 1024**3, "cuda:0": 1000}
    assert (photo.description, photo.licence, photo.policy) == ("Photographs", "MIT", "fastest")
    assert (photo.defaults.height, photo.defaults.num_inference_steps) == (512, 30)
    first = photo.instances[0]
    assert (first.device, first.dtype, first.row_limit) == ("cuda:0", "float16", 4)
    assert first.options == {"offload": "none"}


def test_instances_without_a_name_get_one(tmp_path: Path) -> None:
    config = read(tmp_path, PHOTO)
    assert instances(config, "photo") == ["photo/diffusers", "photo/fake", "photo/fake-2"]
    assert instances(config, "sketch") == ["pencil"]


def test_a_relative_source_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/own.toml").write_text(PHOTO)
    config = load_config(tmp_path / "config/own.toml", environ={}, directory=tmp_path)
    sources = [instance.source for model in config.models for instance in model.instances]
    assert sources == [str(tmp_path / "config/weights"), "", "", "someone/sketch"]


def test_a_source_without_a_dot_is_a_folder_where_one_is(tmp_path: Path) -> None:
    make_model(tmp_path / "someone/sketch")
    config = read(tmp_path, PHOTO)
    assert config.models[1].instances[0].source == str(tmp_path / "someone/sketch")


def test_the_first_model_is_the_default_where_none_is_named(tmp_path: Path) -> None:
    assert read(tmp_path, PHOTO.replace('default_model = "photo"', "")).default_model == "photo"


def test_a_backend_of_ones_own_is_an_import_string(tmp_path: Path) -> None:
    config = read(tmp_path, "[[models.photo.instances]]\nbackend = 'house.paint:Painter'")
    assert instances(config, "photo") == ["photo/house.paint:Painter"]


# --- which file


def test_path_goes_before_the_variable_and_the_variable_before_the_folder(tmp_path: Path) -> None:
    for name in ("path", "named", "triptych"):
        (tmp_path / f"{name}.toml").write_text(PHOTO.replace("photo", name))
    environ = {"TRIPTYCH_CONFIG": "named.toml"}
    by_path = load_config(tmp_path / "path.toml", environ=environ, directory=tmp_path)
    by_variable = load_config(environ=environ, directory=tmp_path)
    by_folder = load_config(environ={}, directory=tmp_path)
    assert [config.default_model for config in (by_path, by_variable, by_folder)] == [
        "path", "named", "triptych",
    ]  # fmt: skip


def test_the_process_environment_and_folder_are_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "triptych.toml").write_text(PHOTO)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIPTYCH_QUEUE", "9")
    config = load_config()
    assert (config.default_model, config.limits.queue) == ("photo", 9)


# --- where models come from


def test_without_any_configuration_the_shipped_model_serves(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert (names(config), config.default_model) == (["shapes"], "shapes")
    instance = config.models[0].instances[0]
    assert (instance.name, instance.backend, instance.source) == (
        "shapes/diffusers", "diffusers", "shipped:shapes",
    )  # fmt: skip
    defaults = config.models[0].defaults
    assert (defaults.num_inference_steps, defaults.guidance_scale) == (20, 3.0)


def test_a_file_without_models_leaves_the_shipped_model(tmp_path: Path) -> None:
    config = read(tmp_path, "[limits]\nqueue = 1")
    assert (names(config), config.limits.queue) == (["shapes"], 1)


@pytest.mark.parametrize("folder", ["model", "."])
def test_a_local_folder_goes_before_the_shipped_model(tmp_path: Path, folder: str) -> None:
    place = make_model(tmp_path / folder)
    config = read(tmp_path)
    assert names(config) == [place.resolve().name]
    assert config.models[0].instances[0].source == str(place)


def test_the_files_models_go_before_a_local_folder(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    assert names(read(tmp_path, PHOTO)) == ["photo", "sketch"]


def test_variable_model_picks_a_configured_model(tmp_path: Path) -> None:
    config = read(tmp_path, PHOTO, model="sketch")
    assert (names(config), config.default_model) == (["photo", "sketch"], "sketch")


@pytest.mark.parametrize("text", ["", PHOTO])
def test_variable_model_may_be_a_folder(tmp_path: Path, text: str) -> None:
    folder = make_model(tmp_path / "own/painting")
    config = read(tmp_path, text, model="own/painting")
    made = config.model("painting")
    assert made is not None
    assert config.default_model == "painting"
    assert made.instances[0].source == str(folder)


def test_variable_model_may_be_a_hub_id(tmp_path: Path) -> None:
    config = read(tmp_path, model="someone/painting-1.0")
    assert config.default_model == "someone/painting-1.0"
    assert config.models[0].instances[0].source == "someone/painting-1.0"


def test_variable_model_may_name_the_shipped_model_beside_a_file(tmp_path: Path) -> None:
    config = read(tmp_path, PHOTO, model="shapes")
    assert (names(config), config.default_model) == (["photo", "sketch", "shapes"], "shapes")
