"""How many tokens T5 reads: an instance must read as many as the exports of its model."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.errors import ConfigError
from tests.diffusers_doubles import Lanes, generate, loaded, make
from tests.miniatures import miniature


async def test_it_changes_the_picture_of_a_model_with_t5(miniatures: Path, lanes: Lanes) -> None:
    made = []
    for options in ({}, {"text_length": 256}, {"text_length": 16}):
        backend = await loaded(lanes, miniature("sd3", miniatures), options=options)
        made.append((await generate(backend)).pictures[0].image)
    assert made[0] == made[1] != made[2]


async def test_it_is_refused_for_a_model_without_t5(model_folder: Path, lanes: Lanes) -> None:
    with pytest.raises(ConfigError, match="`text_length` is 77, but a StableDiffusionPipeline has no T5"):
        await make(lanes, model_folder, options={"text_length": 77}).probe()


async def test_it_is_at_most_what_pipelines_take(miniatures: Path, lanes: Lanes) -> None:
    with pytest.raises(ConfigError, match="option `text_length` is 513"):
        make(lanes, miniature("sd3", miniatures), options={"text_length": 513})
