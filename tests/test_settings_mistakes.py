"""Mistakes in the file or the environment: one sentence for each, with its place and its cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.configurations import PHOTO, make_model, refused

MISTAKES = [
    ("[limits]\nmax_heigth = 5", "there is no key `limits.max_heigth`; did you mean max_height?"),
    ("[limit]\nqueue = 5", "there is no key `limit`; did you mean limits?"),
    ("zebra = 1", "there is no key `zebra`; the known ones are: default_model, fallback_model,"),
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
        ("model", "photos", "is 'photos', which is no model, folder, file or hub id; did you mean photo?"),
        ("model", "./gone/away", "no model, folder, file or hub id; the known ones are: photo, sketch,"),
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
