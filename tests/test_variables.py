"""The environment goes before the file: what each TRIPTYCH_ variable sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.variables import SETS, Variables
from tests.configurations import PHOTO, instances, read


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


def test_the_table_of_variables_is_whole() -> None:
    assert list(SETS) == list(Variables.model_fields)
