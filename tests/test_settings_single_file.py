"""TRIPTYCH_MODEL and triptych.toml with a checkpoint as the model; where each model says it was found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.configurations import PHOTO, make_model, names, read, refused
from tests.headers import checkpoint


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    return checkpoint(tmp_path / "own" / "painting-1.5.safetensors", {"a": (1,)})


@pytest.mark.parametrize("text", ["", PHOTO])
def test_the_variable_may_be_a_checkpoint(tmp_path: Path, file: Path, text: str) -> None:
    config = read(tmp_path, text, model="own/painting-1.5.safetensors")
    made = config.model("painting-1.5")
    assert made is not None
    assert config.default_model == "painting-1.5"
    assert (made.instances[0].source, made.origin) == (str(file), "named by TRIPTYCH_MODEL")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("own/gone.safetensors", "is 'own/gone.safetensors', a file that is not there; correct the path."),
        ("gone.ckpt", "a file that is not there"),
        ("old.ckpt", "is 'old.ckpt', and only .safetensors files are read; convert it, or name a folder."),
        ("triptych.toml", "only .safetensors files are read"),
        ("photo.safetensors", "the file has another model 'photo'; rename the file or the model."),
    ],
)
def test_a_file_that_cannot_be_a_model(tmp_path: Path, model: str, says: str) -> None:
    (tmp_path / "old.ckpt").write_bytes(b"pickle")
    (tmp_path / "photo.safetensors").write_bytes(b"")
    assert says in refused(tmp_path, PHOTO, model=model)


def test_paths_of_an_instance_are_relative_to_the_file(tmp_path: Path, file: Path) -> None:
    make_model(tmp_path / "configs")
    text = f"""
        [[models.photo.instances]]
        backend = "diffusers"
        source = "own/{file.name}"
        options = {{ config = "configs", attention = "configs" }}
    """
    (instance,) = read(tmp_path, text).models[0].instances
    assert instance.source == str(file)
    assert instance.options == {"config": str(tmp_path / "configs"), "attention": "configs"}


def test_every_model_says_why_it_is_there(tmp_path: Path) -> None:
    assert read(tmp_path).models[0].origin.startswith("the shipped model, as none is named")
    assert read(tmp_path, model="shapes").models[0].origin == "named by TRIPTYCH_MODEL"
    make_model(tmp_path)
    assert read(tmp_path).models[0].origin == "the working directory, as no model is named"
    make_model(tmp_path / "model")
    assert read(tmp_path).models[0].origin == "`model` in the working directory, as no model is named"
    config = read(tmp_path, PHOTO, model="someone/painting")
    assert names(config) == ["photo", "sketch", "someone/painting"]
    assert [model.origin for model in config.models] == [
        f"`[models.photo]` of {tmp_path / 'triptych.toml'}",
        f"`[models.sketch]` of {tmp_path / 'triptych.toml'}",
        "named by TRIPTYCH_MODEL",
    ]
