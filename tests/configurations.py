"""Configurations for a test: a triptych.toml of two models, and reading it under given variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.config import RouterConfig
from router.errors import ConfigError
from router.settings import load_config

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
