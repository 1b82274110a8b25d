"""The shipped model: its files are what every library reads, and its pictures follow the prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from transformers import CLIPTextModel

from backends._shipped import SHIPPED, resolve
from router.errors import LoadError
from scripts.shapes_check import judge
from scripts.shapes_prompts import KINDS, SHAPES, Scene, scenes

FOLDER = SHIPPED["shapes"]


@pytest.fixture(scope="module")
def pipeline() -> Any:
    loaded = StableDiffusionPipeline.from_pretrained(FOLDER, use_safetensors=True, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def settings(file: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FOLDER / file).read_text())
    return read


def test_a_shipped_source_is_a_folder_of_the_package() -> None:
    assert resolve("shipped:shapes") == str(FOLDER)
    assert Path(resolve("shipped:shapes"), "model_index.json").is_file()


@pytest.mark.parametrize("source", ["", "shapes", "/models/sdxl", "owner/name", "grpc://host:8001"])
def test_any_other_source_stays_as_it_is(source: str) -> None:
    assert resolve(source) == source


def test_an_unknown_shipped_model_is_refused_with_those_there_are() -> None:
    with pytest.raises(LoadError, match="'shipped:shape' in this package; `source` can be shipped:shapes"):
        resolve("shipped:shape")


def test_all_files_are_small_and_none_is_pickled() -> None:
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".json", ".txt", ".safetensors", ".md"}
    assert sum(file.stat().st_size for file in files) < 12_000_000


def test_weights_are_half_precision() -> None:
    for file in FOLDER.rglob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"F16"}  # noqa: SIM118


def test_the_text_encoder_has_the_keys_that_transformers_4_and_5_read() -> None:
    with safe_open(FOLDER / "text_encoder" / "model.safetensors", "pt") as weights:
        assert all(key.startswith("text_model.") for key in weights.keys())  # noqa: SIM118


def test_the_text_encoder_names_float32_like_the_rest_is_loaded(pipeline: Any) -> None:
    assert settings("text_encoder/config.json")["dtype"] == "float32"
    modules = (pipeline.text_encoder, pipeline.unet, pipeline.vae)
    assert {module.dtype for module in modules} == {torch.float32}


def test_every_weight_of_the_text_encoder_is_read_from_the_file() -> None:
    _, report = CLIPTextModel.from_pretrained(FOLDER / "text_encoder", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_the_tokenizer_has_the_files_that_transformers_4_and_5_read(pipeline: Any) -> None:
    files = {file.name for file in (FOLDER / "tokenizer").iterdir()}
    assert files >= {"vocab.json", "merges.txt", "tokenizer.json", "special_tokens_map.json"}
    config, tokenizer = pipeline.text_encoder.config, pipeline.tokenizer
    assert len(tokenizer) == config.vocab_size
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (config.bos_token_id, config.eos_token_id)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_any_text_is_tokenised_without_an_unknown(pipeline: Any) -> None:
    text = "ein rôter Kreis, 赤い円 🟥 #1!"
    assert pipeline.tokenizer.unk_token_id not in pipeline.tokenizer(text).input_ids[1:-1]


def test_pictures_follow_their_prompts(pipeline: Any) -> None:
    asked = scenes()[::20]
    verdicts = [judge(scene, pixels) for scene, pixels in zip(asked, _paint(pipeline, asked), strict=True)]
    assert {thing.shape for scene in asked for thing in scene.things} == set(SHAPES)
    assert {scene.kind for scene in asked} == set(KINDS)
    assert sum(verdict["all"] for verdict in verdicts) >= len(asked) - 1


def _paint(pipeline: Any, asked: Sequence[Scene]) -> Any:
    """uint8 pictures, [scenes, 128, 128, 3]."""
    made = pipeline(
        [scene.prompt for scene in asked],
        num_inference_steps=20,
        guidance_scale=3.0,
        generator=[torch.Generator().manual_seed(seed) for seed in range(len(asked))],
        output_type="np",
    )
    return (made.images * 255).round().astype(np.uint8)
