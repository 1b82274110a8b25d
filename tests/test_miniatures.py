"""The miniature pipelines: each loads with the usual libraries, makes pictures, and has the common layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
    DiffusionPipeline,
)
from PIL import Image
from safetensors import safe_open

from tests.miniatures import FAMILIES, SIDE, Family, miniature

VARIANTS = (*FAMILIES, "flux-schnell")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("miniatures")


@pytest.fixture(params=VARIANTS)
def folder(request: pytest.FixtureRequest, root: Path) -> Path:
    family: Family = request.param.removesuffix("-schnell")
    return miniature(family, root, guidance_embeds=not request.param.endswith("-schnell"))


@pytest.fixture
def pipeline(folder: Path) -> Any:
    loaded = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    return quiet(loaded)


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def paint(pipeline: Any, prompt: str = "a red circle", seed: int = 0, steps: int = 2, **more: Any) -> Any:
    """One picture as floats in 0..1, [SIDE, SIDE, 3]."""
    if hasattr(pipeline, "transformer"):
        more |= {"height": SIDE, "width": SIDE, "max_sequence_length": 32}
    generator = torch.Generator().manual_seed(seed)
    made = pipeline(prompt, num_inference_steps=steps, generator=generator, output_type="np", **more)
    return made.images[0]


def difference(one: Any, other: Any) -> float:
    """The mean difference of two pictures, in levels of 255."""
    return float(np.abs(one - other).mean() * 255)


def test_pictures_follow_prompt_seed_and_steps(pipeline: Any) -> None:
    pipeline = AutoPipelineForText2Image.from_pipe(pipeline)
    picture = paint(pipeline)

    assert picture.shape == (SIDE, SIDE, 3)
    assert np.isfinite(picture).all()
    assert picture.std() > 0.1
    assert difference(picture, paint(pipeline)) == 0
    assert difference(picture, paint(pipeline, prompt="a blue star")) > 1
    assert difference(picture, paint(pipeline, seed=1)) > 1
    assert difference(picture, paint(pipeline, steps=4)) > 1


@pytest.mark.parametrize("task", [AutoPipelineForImage2Image, AutoPipelineForInpainting])
def test_pictures_can_be_changed_and_painted_in(pipeline: Any, task: Any) -> None:
    image = Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB")
    given: dict[str, Any] = {"image": image, "strength": 0.9}
    if task is AutoPipelineForInpainting:
        given["mask_image"] = Image.radial_gradient("L").resize((SIDE, SIDE))
    pipeline = quiet(task.from_pipe(pipeline))

    picture = paint(pipeline, steps=4, **given)

    assert picture.shape == (SIDE, SIDE, 3)
    assert np.isfinite(picture).all()
    assert difference(picture, paint(pipeline, prompt="a blue star", steps=4, **given)) > 1


def test_clip_keys_have_the_prefix_that_both_libraries_read(folder: Path) -> None:
    for component, class_name in text_classes(folder).items():
        with safe_open(folder / component / "model.safetensors", "pt") as weights:
            keys = set(weights.keys())
        if class_name.startswith("CLIP"):
            assert {key for key in keys if not key.startswith("text_model.")} <= {"text_projection.weight"}


def test_tokenizers_have_the_files_that_both_libraries_read(folder: Path) -> None:
    for component, class_name in text_classes(folder).items():
        tokenizer = folder / component.replace("text_encoder", "tokenizer")
        files = {file.name for file in tokenizer.iterdir()}
        assert files >= ({"vocab.json", "merges.txt"} if "CLIP" in class_name else {"tokenizer.json"})
    tokenizers = [entry for name, entry in index(folder).items() if name.startswith("tokenizer")]
    assert {class_name for _, class_name in tokenizers} <= {"CLIPTokenizer", "T5TokenizerFast"}


def test_text_encoders_agree_with_their_tokenizers(pipeline: Any, folder: Path) -> None:
    for component, class_name in text_classes(folder).items():
        config = getattr(pipeline, component).config
        tokenizer = getattr(pipeline, component.replace("text_encoder", "tokenizer"))
        assert config.vocab_size == len(tokenizer)
        assert config.eos_token_id == tokenizer.eos_token_id
        if class_name.startswith("CLIP"):
            assert config.bos_token_id == tokenizer.bos_token_id


def test_weights_come_without_pickle_and_small(folder: Path) -> None:
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert not [file for file in files if file.suffix in {".bin", ".pt", ".ckpt", ".pkl"}]
    assert sum(file.stat().st_size for file in files) < 4_000_000


def test_a_second_call_finds_what_the_first_one_built(root: Path) -> None:
    built = (miniature("sd15", root) / "model_index.json").stat().st_mtime_ns
    assert (miniature("sd15", root) / "model_index.json").stat().st_mtime_ns == built


def test_weights_are_the_same_wherever_they_are_built(root: Path, tmp_path: Path) -> None:
    file = "transformer/diffusion_pytorch_model.safetensors"
    assert (miniature("flux", root) / file).read_bytes() == (miniature("flux", tmp_path) / file).read_bytes()


def test_flux_comes_with_and_without_guidance(root: Path) -> None:
    def embeds(folder: Path) -> bool:
        return bool(json.loads((folder / "transformer/config.json").read_text())["guidance_embeds"])

    assert embeds(miniature("flux", root))
    assert not embeds(miniature("flux", root, guidance_embeds=False))


def index(folder: Path) -> dict[str, Any]:
    parts: dict[str, Any] = json.loads((folder / "model_index.json").read_text())
    return {name: part for name, part in parts.items() if isinstance(part, list)}


def text_classes(folder: Path) -> dict[str, str]:
    """Text encoder components and their classes."""
    return {name: part[1] for name, part in index(folder).items() if name.startswith("text_encoder")}
