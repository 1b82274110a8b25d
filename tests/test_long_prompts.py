"""Prompts beyond the text window, and weights in prompts: the pictures that Compel's own users would get."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compel import CompelForSD, CompelForSDXL

from backends._pipeline import PipelineBackend
from router.errors import ConfigError, InvalidRequestError
from router.request import GenerateRequest
from tests.diffusers_doubles import Lanes, loaded, make
from tests.miniatures import SIDE, Family, miniature
from tests.plain_pipelines import MASK, PICTURE, difference, pixels, plain_pipeline

CLIP_FAMILIES: tuple[Family, ...] = ("sd15", "sdxl")
LONG = ", ".join(f"a red circle beside {n} blue stars on a white background" for n in range(12)) + "."


def asked(prompt: str = LONG, **fields: Any) -> GenerateRequest:
    filled = {"height": SIDE, "width": SIDE, "num_inference_steps": 3, "guidance_scale": 4.0, "seed": 5}
    return GenerateRequest.of(prompt=prompt, **filled | fields)


async def picture(backend: PipelineBackend, request: GenerateRequest) -> np.ndarray[Any, Any]:
    made = await backend.generate(request, lambda event: None, None)
    return pixels(made.pictures[0].image).astype(int)


@torch.no_grad()
def reference(
    folder: Path, request: GenerateRequest, prompt: str, negative: str | None, summaries: tuple[str, str]
) -> np.ndarray[Any, Any]:
    """The plain pipeline, given the embeddings that Compel makes of prompts in its own syntax.

    XL's `summaries` are the pipeline's own, of the plain texts: Compel would read its syntax into them.
    """
    pipeline = plain_pipeline(folder, "text-to-image")
    is_xl = hasattr(pipeline, "text_encoder_2")
    found = (CompelForSDXL if is_xl else CompelForSD)(pipeline)(prompt, negative_prompt=negative)
    given = {"prompt_embeds": found.embeds, "negative_prompt_embeds": found.negative_embeds}
    if is_xl:
        given["pooled_prompt_embeds"] = pipeline.encode_prompt(summaries[0])[2]
        if negative is not None:
            given["negative_pooled_prompt_embeds"] = pipeline.encode_prompt(summaries[1])[2]
    made = pipeline(
        **given,
        height=SIDE,
        width=SIDE,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(request.seed or 0),
    )
    return np.asarray(made.images[0]).astype(int)


def test_the_prompt_of_these_tests_is_long(miniatures: Path) -> None:
    tokenizer = plain_pipeline(miniature("sd15", miniatures), "text-to-image").tokenizer
    assert len(tokenizer(LONG, verbose=False).input_ids) >= 150


@pytest.mark.parametrize("family", CLIP_FAMILIES)
async def test_a_long_prompt_makes_the_picture_of_its_windows(
    miniatures: Path, lanes: Lanes, family: Family
) -> None:
    folder = miniature(family, miniatures)
    backend = await loaded(lanes, folder)
    for negative in (None, "blurred", LONG[:-60]):
        request = asked(long_prompt="chunk", negative_prompt=negative)
        theirs = "" if negative is None and family == "sd15" else negative  # XL has zeros for none
        wanted = reference(folder, request, LONG, theirs, (LONG, theirs or ""))
        made = await picture(backend, request)
        assert np.abs(made - wanted).max() <= 1, negative
    first_window = await picture(backend, asked(LONG[:200], negative_prompt=LONG[:200]))
    assert np.abs(made - first_window).max() > 1  # the rest is not cut


@pytest.mark.parametrize("family", CLIP_FAMILIES)
async def test_a_weighted_prompt_makes_the_picture_of_its_weights(
    miniatures: Path, lanes: Lanes, family: Family
) -> None:
    folder = miniature(family, miniatures)
    backend = await loaded(lanes, folder)
    for prompt, theirs, text in (
        ("a (red:1.5) circle", "a (red)1.5 circle", "a red circle"),
        ("a (red:0.4) circle on (blue:1.2)", "a (red)0.4 circle on (blue)1.2", "a red circle on blue"),
    ):
        request = asked(prompt, prompt_weighting=True, negative_prompt="(blurred:1.2)")
        wanted = reference(folder, request, theirs, "(blurred)1.2", (text, "blurred"))
        made = await picture(backend, request)
        assert np.abs(made - wanted).max() <= 1, prompt
        unweighted = await picture(backend, asked(text, negative_prompt="blurred"))
        assert np.abs(made - unweighted).max() > 1, prompt


@pytest.mark.parametrize("family", CLIP_FAMILIES)
async def test_a_short_prompt_is_read_as_ever(miniatures: Path, lanes: Lanes, family: Family) -> None:
    folder = miniature(family, miniatures)
    backend = await loaded(lanes, folder)
    plain = await picture(backend, asked("a (red) circle"))
    for fields in ({"long_prompt": "chunk"}, {"prompt_weighting": True}):
        assert np.array_equal(await picture(backend, asked("a (red) circle", **fields)), plain)
    made = await backend.generate(asked("a (red:1.3) circle"), lambda event: None, None)
    assert difference(made, folder, asked("a (red:1.3) circle")) <= 1  # text, unless weights are asked for


@pytest.mark.parametrize("task", ["image-to-image", "inpainting"])
async def test_the_other_tasks_read_long_prompts_too(miniatures: Path, lanes: Lanes, task: Any) -> None:
    backend = await loaded(lanes, miniature("sdxl", miniatures))
    given: dict[str, Any] = {"image": PICTURE, "strength": 0.8}
    if task == "inpainting":
        given["mask_image"] = MASK
    long = await picture(backend, asked(long_prompt="chunk", **given))
    first_window = await picture(backend, asked(LONG[:200], **given))
    assert np.abs(long - first_window).max() > 1


async def test_long_and_short_share_a_lane_and_no_tick(miniatures: Path, lanes: Lanes) -> None:
    """Embeddings of another length are another shape: both pictures are those made alone."""
    backend = await loaded(lanes, miniature("sdxl", miniatures))
    requests = [asked(long_prompt="chunk"), asked("a red circle"), asked(long_prompt="chunk", seed=6)]
    alone = [await picture(backend, request) for request in requests]
    shapes: list[tuple[int, ...]] = []
    gathering = backend._gatherings["unet"]
    plain_run = gathering._function

    def watched(**values: Any) -> Any:
        shapes.append(tuple(values["encoder_hidden_states"].shape[:2]))
        return plain_run(**values)

    gathering._function = watched
    together = await asyncio.gather(*(picture(backend, request) for request in requests))
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(alone, together, strict=True))
    assert {tokens for _, tokens in shapes} == {77, 77 * 4}
    assert (4, 77 * 4) in shapes  # the long ones shared
    assert (2, 77) in shapes


async def test_refused_with_the_number_of_tokens_unless_asked_for(miniatures: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, miniature("sd15", miniatures))
    says = "has 232 tokens with its marks, and the model reads 77; shorten it, or set `long_prompt` to"
    for fields in ({}, {"long_prompt": "refuse"}, {"prompt_weighting": True}):
        with pytest.raises(InvalidRequestError, match=f"`prompt` {says}"):
            await picture(backend, asked(**fields))
    with pytest.raises(InvalidRequestError, match=f"`negative_prompt` {says}"):
        await picture(backend, asked("short", negative_prompt=LONG))


async def test_an_instance_may_be_told_to_read_them(miniatures: Path, lanes: Lanes) -> None:
    folder = miniature("sd15", miniatures)
    backend = await loaded(lanes, folder, options={"long_prompt": "chunk"})
    made = await picture(backend, asked())
    assert np.array_equal(made, await picture(backend, asked(long_prompt="chunk")))
    with pytest.raises(InvalidRequestError, match="232 tokens"):
        await picture(backend, asked(long_prompt="refuse"))


@pytest.mark.parametrize("family", ["sd3", "flux"])
async def test_families_read_by_t5_refuse_before_anything_is_loaded(
    miniatures: Path, lanes: Lanes, family: Family
) -> None:
    folder = miniature(family, miniatures)
    capabilities = await make(lanes, folder).probe()
    for fields in ({"long_prompt": "chunk"}, {"prompt_weighting": True}):
        why = capabilities.why_not(asked("short", num_inference_steps=28, **fields))
        assert why is not None
        assert "reads a prompt whole, or not at all" in why
    with pytest.raises(ConfigError, match="option `long_prompt` cannot be 'chunk'"):
        await make(lanes, folder, options={"long_prompt": "chunk"}).probe()


async def test_without_the_library_the_cure_is_said(
    miniatures: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    capabilities = await make(lanes, miniature("sd15", miniatures)).probe()
    why = capabilities.why_not(asked("short", prompt_weighting=True))
    assert why == "`prompt_weighting` cannot be had: it needs compel; pip install 'triptych[prompts]'."
