"""The training of the shipped model: its lessons are true and new, and a break changes nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from backends._shipped import SHIPPED
from scripts import shapes_lessons, shapes_train, shapes_train_loop, shapes_train_text, shapes_train_vae
from scripts.shapes_check import judge
from scripts.shapes_draw import Pixels
from scripts.shapes_latents import SCALING, latents
from scripts.shapes_lessons import FACTS, Lesson, LessonKind, lesson
from scripts.shapes_prompts import COLOURS, Kind, Scene, scenes
from scripts.shapes_train_loop import Stage, rate_at, train
from scripts.shapes_train_text import facts
from scripts.shapes_train_vae import autoencoder, pictures

KINDS: tuple[LessonKind, ...] = get_args(LessonKind)
ASKED: dict[LessonKind, Kind] = {"centred": "one", "placed": "place", "pair": "two"}


@pytest.fixture(scope="module")
def untrained() -> Any:
    return autoencoder().eval()


def lessons(kind: LessonKind, count: int) -> list[Lesson]:
    chance = random.Random(7)
    return [lesson(kind, chance) for _ in range(count)]


def as_pixels(signed: Tensor) -> Pixels:
    """From [3, height, width], -1 to 1."""
    return ((signed.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_judge_agrees_with_every_lesson(kind: LessonKind) -> None:
    taught = lessons(kind, 12)
    for each, pixels in zip(taught, pictures(taught), strict=True):
        scene = Scene(ASKED[kind], each.caption, each.background, tuple(thing for thing, _ in each.things))
        assert judge(scene, as_pixels(pixels))["all"], each


def test_no_lesson_has_the_caption_of_a_test_prompt() -> None:
    asked = {scene.prompt for scene in scenes()}
    assert not asked & {each.caption for kind in KINDS for each in lessons(kind, 2000)}


def test_a_lesson_with_the_caption_of_a_test_prompt_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    caption = lesson("pair", random.Random(1)).caption
    monkeypatch.setattr(shapes_lessons, "_test_prompts", lambda: frozenset({caption}))
    assert lesson("pair", random.Random(1)).caption != caption


def test_captions_say_the_facts_that_they_are_read_for() -> None:
    for each in lessons("placed", 200):
        words = each.caption.replace("grey", "gray")
        for fact in ("background", "colour"):
            assert (fact not in each.says) or each.says[fact] in words
        assert each.things[0][0].place == each.says["place"]
        assert each.background == each.says.get("background", each.background)


def test_the_one_named_first_is_where_the_relation_says() -> None:
    compared = {"left": "column", "right": "column", "above": "row", "below": "row"}
    for each in lessons("pair", 200):
        first, second = (pose for _, pose in each.things)
        relation = each.says["relation"]
        nearer = getattr(first, compared[relation]) < getattr(second, compared[relation])
        assert nearer == (relation in ("left", "above"))


def test_facts_are_numbered_and_the_unsaid_is_0() -> None:
    says = {"background": COLOURS[0], "colour": COLOURS[4], "relation": "below"}
    found = dict(zip(FACTS, facts([Lesson("", says, COLOURS[0], ())])[0].tolist(), strict=True))
    assert found == dict.fromkeys(FACTS, 0) | {"background": 1, "colour": 5, "relation": 4}


def test_the_set_encoder_is_the_shipped_one(untrained: Any) -> None:
    with safe_open(SHIPPED["shapes"] / "vae" / "diffusion_pytorch_model.safetensors", "pt") as shipped:
        encoder = {key: weight for key, weight in untrained.state_dict().items() if key.startswith("encoder")}
        assert all(torch.equal(weight.half(), shipped.get_tensor(key)) for key, weight in encoder.items())


def test_latents_are_those_of_the_set_encoder(untrained: Any) -> None:
    taught = [each for kind in KINDS for each in lessons(kind, 4)]
    with torch.no_grad():
        encoded = untrained.encode(pictures(taught)).latent_dist.mode() * SCALING
    difference = (encoded - latents(taught)).abs()
    assert difference.mean() < 0.005
    assert difference.amax() < 0.5  # a straight edge may lie a quarter of a pixel aside


def test_the_decoder_begins_by_repeating_each_cell(untrained: Any) -> None:
    seen = pictures(lessons("centred", 3))
    with torch.no_grad():
        decoded = untrained.decode(untrained.encode(seen).latent_dist.mode()).sample
    repeated = functional.interpolate(functional.avg_pool2d(seen, 8), scale_factor=8)
    assert torch.allclose(decoded, repeated, atol=0.005)


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [rate_at(step, 1000) for step in range(1000)]
    assert rates[0] < rates[100] < rates[199] == rates[500] == rates[699] == 1
    assert 1 > rates[750] > rates[999] > 0


def line_stage(steps: int, *, killed_at: int | None = None) -> Stage[Tensor]:
    """A straight line that learns from points drawn for each step; a step can be its last."""
    torch.manual_seed(0)
    line = nn.Linear(3, 1)

    def batches(step: int) -> Sequence[Tensor]:
        if step == killed_at:
            raise KeyboardInterrupt
        return torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(step)).unbind()

    return Stage("line", line, batches, lambda points: (line(points) - 1).square().mean(), steps, 0.1)


def test_after_a_break_the_same_weights_come_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes_train_loop, "CHECKPOINT_STEPS", 4)
    for folder in ("whole", "broken"):
        (tmp_path / folder).mkdir()
    whole = train(line_stage(12), tmp_path / "whole").state_dict()
    with pytest.raises(KeyboardInterrupt):
        train(line_stage(12, killed_at=7), tmp_path / "broken")
    (tmp_path / "broken" / "line.fresh").write_bytes(b"half a checkpoint")
    again = train(line_stage(12), tmp_path / "broken").state_dict()
    assert all(torch.equal(again[key], whole[key]) for key in whole)


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    first = train(line_stage(3), tmp_path).state_dict()
    again = train(line_stage(3, killed_at=0), tmp_path).state_dict()
    assert all(torch.equal(again[key], first[key]) for key in first)


def test_weights_move_and_their_average_follows(tmp_path: Path) -> None:
    stage = line_stage(5)
    before = stage.module.state_dict()["weight"].clone()
    average = train(stage, tmp_path).state_dict()["weight"]
    assert not torch.equal(before, average)
    assert not torch.equal(stage.module.state_dict()["weight"], average)


def test_a_trained_folder_is_a_pipeline_in_the_layout_of_both_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (shapes_train_text, shapes_train_vae):
        monkeypatch.setattr(stage, "STEPS", 1)
        monkeypatch.setattr(stage, "BATCH", 2)
    threads = torch.get_num_threads()
    options = SimpleNamespace(folder=tmp_path, device="cpu", steps=1, batch=4, vae=None)
    model = shapes_train.train_model(options)  # type: ignore[arg-type]
    torch.set_num_threads(threads)
    with safe_open(model / "text_encoder" / "model.safetensors", "pt") as weights:
        assert all(key.startswith("text_model.") for key in weights.keys())  # noqa: SIM118
    assert sum(file.stat().st_size for file in model.rglob("*.safetensors")) <= 12_000_000
    pipeline: Any = StableDiffusionPipeline.from_pretrained(model, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    assert {part.dtype for part in (pipeline.text_encoder, pipeline.unet, pipeline.vae)} == {torch.float32}
    assert pipeline("a red circle", num_inference_steps=1, output_type="np").images.shape == (1, 128, 128, 3)
