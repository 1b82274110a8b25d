"""load_config: precedence, where models come from, and one sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.config import RouterConfig
from router.errors import ConfigError
from router.settings import load_config
from router.variables import SETS, Variables

PHOTO = """
default_model = "photo"
deadline_s = 60

[limits]
max_height = 1024
queue = 5

[breaker]
failures = 7

[device_memory]
cpu = "2GiB"
"cuda:0" = 1000

[models.photo]
description = "Photographs"
licence = "MIT"
policy = "fastest"
defaults = { height = 512, num_inference_steps = 30 }

[[models.photo.instances]]
backend = "diffusers"
source = "./weights"
device = "cuda:0"
dtype = "float16"
row_limit = 4
options = { offload = "none" }

[[models.photo.instances]]
backend = "fake"

[[models.photo.instances]]
backend = "fake"

[models.sketch]
[[models.sketch.instances]]
name = "pencil"
backend = "diffusers"
source = "someone/sketch"
"""


def read(directory: Path, text: str = "", **variables: str) -> RouterConfig:
    """The configuration of a folder with this triptych.toml under these variables."""
    if text:
        (directory / "triptych.toml").write_text(text)
    environ = {f"TRIPTYCH_{name.upper()}": value for name, value in variables.items()}
    return load_config(environ={**environ, "PATH": "/bin"}, directory=directory)


def refused(directory: Path, text: str = "", **variables: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(directory, text, **variables)
    return str(caught.value)


def make_model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_text("{}")
    return folder


def names(config: RouterConfig) -> list[str]:
    return [model.name for model in config.models]


def instances(config: RouterConfig, model: str) -> list[str]:
    found = config.model(model)
    assert found is not None
    return [instance.name for instance in found.instances]


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
    assert (defaults.num_inference_steps, defaults.guidance_scale) == (20, 5.0)


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


# --- the environment goes before the file


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_height", "800", 800),
        ("max_width", "700", 700),
        ("max_steps", "40", 40),
        ("max_guidance", "9.5", 9.5),
        ("max_images", "2", 2),
        ("concurrency", "3", 3),
        ("queue", "0", 0),
    ],
)
def test_variables_set_limits(tmp_path: Path, name: str, value: str, expected: float) -> None:
    config = read(tmp_path, PHOTO, **{name: value})
    assert getattr(config.limits, name) == expected
    assert config.breaker.failures == 7


def test_variables_set_the_defaults_of_every_model(tmp_path: Path) -> None:
    config = read(
        tmp_path, PHOTO, default_height="256", default_width="320", default_steps="4", default_guidance="2"
    )
    for model in config.models:
        assert (model.defaults.height, model.defaults.width) == (256, 320)
        assert (model.defaults.num_inference_steps, model.defaults.guidance_scale) == (4, 2.0)


def test_variables_set_device_dtype_and_deadline(tmp_path: Path) -> None:
    config = read(tmp_path, PHOTO, device="cpu", dtype="bfloat16", deadline_s="2.5")
    every = [instance for model in config.models for instance in model.instances]
    assert {(instance.device, instance.dtype) for instance in every} == {("cpu", "bfloat16")}
    assert config.deadline_s == 2.5


def test_variable_backends_picks_and_orders_instances(tmp_path: Path) -> None:
    text = PHOTO.replace('source = "someone/sketch"', "")
    assert instances(read(tmp_path, text, backends="fake, diffusers"), "photo") == [
        "photo/fake", "photo/fake-2", "photo/diffusers",
    ]  # fmt: skip
    assert instances(read(tmp_path, text, backends="diffusers"), "photo") == ["photo/diffusers"]


def test_variable_backends_makes_the_instances_of_a_model_that_stands_in_no_file(tmp_path: Path) -> None:
    assert instances(read(tmp_path, backends="fake,diffusers"), "shapes") == [
        "shapes/fake", "shapes/diffusers",
    ]  # fmt: skip


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    assert read(tmp_path, PHOTO, queue="", model="", backends="").limits.queue == 5


def test_sources_say_where_each_setting_came_from(tmp_path: Path) -> None:
    sources = read(tmp_path, PHOTO, queue="9").sources
    assert "limits.queue: TRIPTYCH_QUEUE" in sources
    assert f"limits.max_height: {tmp_path / 'triptych.toml'}" in sources
    assert f"models.photo: {tmp_path / 'triptych.toml'}" in sources
    assert read(tmp_path / "empty").sources == ("models.shapes: shipped:shapes",)


# --- one sentence for each mistake

MISTAKES = [
    ("[limits]\nmax_heigth = 5", "there is no key `limits.max_heigth`; did you mean max_height?"),
    ("[limit]\nqueue = 5", "there is no key `limit`; did you mean limits?"),
    ("zebra = 1", "there is no key `zebra`; the known ones are: default_model, deadline_s"),
    ("[limits]\nqueue = -1", "`limits.queue` is -1: input should be greater than or equal to 0."),
    ("[limits]\nmax_guidance = nan", "`limits.max_guidance` is nan: input should be a finite number."),
    ("limits = 5", "`limits` is 5: "),
    ("[device_memory]\ncpu = '12 bananas'", "`device_memory.cpu` is '12 bananas': "),
    ("[models.photo]", "`models.photo.instances` is missing; add it."),
    ("[models.photo]\ninstances = []", "`models.photo.instances` is a list: "),
    ("[[models.photo.instances]]", "`models.photo.instances[0].backend` is missing; add it."),
    (
        "[[models.photo.instances]]\nbackend = 'fake'\ndevise = 'cpu'",
        "there is no key `models.photo.instances[0].devise`; did you mean device?",
    ),
    (
        "[models.photo]\ndefaults.hight = 8\n[[models.photo.instances]]\nbackend = 'fake'",
        "there is no key `models.photo.defaults.hight`; did you mean height?",
    ),
    (
        "[[models.photo.instances]]\nbackend = 'difusers'",
        "`models.photo.instances[0].backend`: There is no backend 'difusers'; did you mean 'diffusers'?",
    ),
    (
        "default_model = 'foto'\n[[models.photo.instances]]\nbackend = 'fake'",
        "`default_model` is 'foto', which is no configured model; did you mean photo?",
    ),
    (
        "[[models.a.instances]]\nbackend='fake'\nname='x'\n[[models.b.instances]]\nbackend='fake'\nname='x'",
        "two instances are called 'x'; give each its `name`.",
    ),
    ("limits\n", "is not TOML: Expected '=' after a key in a key/value pair (at line 1, column 7)"),
]


@pytest.mark.parametrize(("text", "sentence"), MISTAKES)
def test_a_mistake_in_the_file_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    said = refused(tmp_path, text)
    assert said.startswith(str(tmp_path / "triptych.toml"))
    assert sentence in said
    assert "\n" not in said


def test_further_mistakes_are_counted(tmp_path: Path) -> None:
    said = refused(tmp_path, "[limits]\nqueue = -1\nconcurrency = 0\nmax_images = 0")
    assert said.endswith("(2 more of its keys are wrong too.)")


def test_a_default_above_its_limit_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, PHOTO, max_height="256")
    assert said == (
        "`models.photo.defaults.height` is 512, above `limits.max_height` 256;"
        " lower the one (TRIPTYCH_DEFAULT_HEIGHT) or raise the other (TRIPTYCH_MAX_HEIGHT)."
    )


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, config="gone.toml")
    assert str(tmp_path / "gone.toml") in said
    assert "correct the path" in said


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "triptych.toml").write_bytes(b"a = '\xff'")
    assert "is not UTF-8 text at byte 5" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("max_heigth", "5", "There is no variable TRIPTYCH_MAX_HEIGTH; did you mean TRIPTYCH_MAX_HEIGHT?"),
        ("zebra", "5", "There is no variable TRIPTYCH_ZEBRA; the known ones are: TRIPTYCH_CONFIG, "),
        ("max_steps", "many", "`TRIPTYCH_MAX_STEPS` is 'many': input should be a valid integer"),
        ("queue", "-1", "`TRIPTYCH_QUEUE` is '-1': input should be greater than or equal to 0."),
        ("default_guidance", "inf", "`TRIPTYCH_DEFAULT_GUIDANCE` is 'inf': input should be a finite number."),
        ("backends", "fake,difusers", "TRIPTYCH_BACKENDS, entry 2: There is no backend 'difusers'; did you"),
        ("model", "photos", "is 'photos', which is no model, folder or hub id; did you mean photo?"),
        ("model", "./gone/away", "no model, folder or hub id; the known ones are: photo, sketch, shapes."),
        ("model", ".", "TRIPTYCH_MODEL is '.', a folder without model_index.json; name a Diffusers folder."),
    ],
)  # fmt: skip
def test_a_mistake_in_the_environment_is_one_sentence(
    tmp_path: Path, name: str, value: str, sentence: str
) -> None:
    assert sentence in refused(tmp_path, PHOTO, **{name: value})


def test_a_model_left_without_an_instance_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, PHOTO, backends="fake") == (
        "TRIPTYCH_BACKENDS is 'fake', which leaves model 'sketch' no instance; add one of diffusers."
    )


def test_a_folder_named_like_a_configured_model_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path / "own/photo")
    assert "the file has another model 'photo'" in refused(tmp_path, PHOTO, model="own/photo")


def test_a_backend_of_ones_own_is_an_import_string(tmp_path: Path) -> None:
    config = read(tmp_path, "[[models.photo.instances]]\nbackend = 'house.paint:Painter'")
    assert instances(config, "photo") == ["photo/house.paint:Painter"]


def test_the_table_of_variables_is_whole() -> None:
    assert list(SETS) == list(Variables.model_fields)
