"""Sentences of the house: each names the field at fault and a cure that works."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from router import BackendRouter, GenerateRequest
from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.errors import BackendUnavailableError, ConfigError, InvalidRequestError, RouterError
from router.registry import BACKENDS, BackendEntry, resolve
from router.settings import load_config
from router.types import RawImage
from tests.test_capabilities import GENERAL

FAKE = ModelConfig(name="demo", instances=(InstanceConfig(name="demo/fake", backend="fake"),))


@pytest.mark.parametrize("wrong", ["a red circle", {"prompt": "a red circle"}])
async def test_a_prompt_that_is_not_named_is_told_how(wrong: Any):
    async with BackendRouter(RouterConfig(models=(FAKE,), default_model="demo")) as router:
        with pytest.raises(InvalidRequestError, match=r"give the fields by name, `prompt=\.\.\.`"):
            await router.generate(wrong)
        assert (await router.generate(prompt="a red circle")).instance == "demo/fake"


@pytest.mark.parametrize("field", ["model", "scheduler"])
def test_a_name_is_neither_empty_nor_repeated_at_length(field: str):
    with pytest.raises(InvalidRequestError, match=f"`{field}` is '', but must not be empty"):
        GenerateRequest.of(prompt="a circle", **{field: ""})
    with pytest.raises(InvalidRequestError, match=f"`{field}` is 5,000 characters long"):
        GenerateRequest.of(prompt="a circle", **{field: "x" * 5000})


def test_an_empty_picture_is_told_what_to_give():
    with pytest.raises(InvalidRequestError, match="is empty; give the bytes of a PNG, JPEG or WebP"):
        GenerateRequest.of(prompt="a circle", image=b"")


def test_a_picture_of_an_odd_size_is_to_be_resized():
    """Another `height` would be refused: it must be the picture's."""
    request = GenerateRequest(image=RawImage(96, 64, bytes(96 * 64 * 3)), height=96, width=64)
    general = dataclasses.replace(GENERAL, tasks=frozenset({"image-to-image"}))
    assert general.why_not(request) == (
        "the height of the picture in `image` must be a multiple of 64, not 96; resize it to 64 or 128."
    )


async def test_a_deadline_that_passes_at_the_probe_names_its_cure():
    slow = FAKE.model_copy(update={"instances": (InstanceConfig(name="slow", backend="fake"),)})
    async with BackendRouter(RouterConfig(models=(slow,), default_model="demo")) as router:
        with pytest.raises(RouterError, match="`deadline_s`"):
            await router.generate(prompt="a circle", deadline_s=1e-9)


def test_the_cure_for_a_library_of_ours_is_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "hungry_house.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)
    entry = BackendEntry("hungry_house:Backend", install="pip install 'triptych[hungry]'")
    monkeypatch.setitem(BACKENDS, "hungry", entry)
    with pytest.raises(BackendUnavailableError, match=r"needs no_such_library.*triptych\[hungry\]"):
        resolve("hungry")


def test_a_library_that_breaks_in_any_way_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "ruined_house.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ruined_house", raising=False)
    with pytest.raises(BackendUnavailableError, match="its libraries are broken; install them again"):
        resolve("ruined_house:Backend")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models.shapes]\ninstanses = []", "no key `models.shapes.instanses`; did you mean instances?"),
        ("[models.shapes]\ninstances = []", "`models.shapes.instances` is a list: it must not be empty."),
        ("models = [1]", "`models` is a list: it must be a table."),
        (
            '[[models.a.instances]]\nbackend = "fake"\nrow_limit = 0',
            "row_limit` is 0: input should be greater than or equal to 1.",
        ),
    ],
)
def test_a_typo_is_told_before_what_follows_from_it(tmp_path: Path, text: str, said: str):
    (tmp_path / "triptych.toml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_config(environ={}, directory=tmp_path)
    assert said in str(refused.value)
    assert "more of its keys" not in str(refused.value) or "instanses" in text


async def test_a_fake_profile_that_is_no_size_is_refused_by_name():
    odd = InstanceConfig(name="odd", backend="fake", options={"profiles": ["axb"]})
    model = FAKE.model_copy(update={"instances": (odd,)})
    async with BackendRouter(RouterConfig(models=(model,), default_model="demo")) as router:
        with pytest.raises(ConfigError, match=r"option `profiles\.0` is 'axb'"):
            await router.generate(prompt="a circle")
