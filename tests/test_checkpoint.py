"""Checkpoints by their headers: which family, what is no model or another, what cannot be told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from router.checkpoint import Checkpoint
from router.errors import LoadError
from tests.headers import checkpoint

UNET, SHORT = "model.diffusion_model.", (1,)
CONV, ATTENTION, LABEL = (
    "input_blocks.0.0.weight",
    "input_blocks.1.1.attn2.to_k.weight",
    "label_emb.0.0.weight",
)
JOINT = "joint_blocks.0.context_block.adaLN_modulation.1.bias"
DOUBLE = "double_blocks.0.img_attn.norm.key_norm.scale"
TEXT = {
    "stable-diffusion": "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    "stable-diffusion-xl": "conditioner.embedders.1.model.token_embedding.weight",
}

Shapes = dict[str, tuple[int, ...]]


def unet(width: int, *, label: bool = False) -> Shapes:
    shapes: Shapes = {UNET + CONV: (320, 4, 3, 3), UNET + ATTENTION: (320, width)}
    return shapes | ({UNET + LABEL: (1280, 2816)} if label else {})


def refusal(file: Path) -> str:
    with pytest.raises(LoadError) as caught:
        Checkpoint(file, "photo")
    assert str(caught.value).startswith("photo: the checkpoint ")
    assert caught.value.instance == "photo"
    return str(caught.value)


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        (unet(768), "stable-diffusion"),
        (unet(2048, label=True), "stable-diffusion-xl"),
        (unet(32) | {TEXT["stable-diffusion"]: (1000, 32)}, "stable-diffusion"),
        (unet(56) | {TEXT["stable-diffusion-xl"]: (1000, 24)}, "stable-diffusion-xl"),
        ({UNET + JOINT: SHORT}, "stable-diffusion-3"),
        ({JOINT: SHORT, "first_stage_model.decoder.conv_in.weight": SHORT}, "stable-diffusion-3"),
        ({UNET + DOUBLE: SHORT}, "flux"),
        ({DOUBLE: SHORT}, "flux"),
    ],
)
def test_the_family_follows_from_names_and_shapes(tmp_path: Path, shapes: Shapes, family: str) -> None:
    found = Checkpoint(checkpoint(tmp_path / "model.safetensors", shapes), "photo")
    assert found.family == family
    assert found.part(next(iter(found.layout.parts)))


def test_parts_are_told_apart_with_and_without_prefixes(tmp_path: Path) -> None:
    shapes = {
        DOUBLE: SHORT,
        "vae.decoder.conv_in.weight": (1, 16),
        "text_encoders.clip_l.transformer.a": SHORT,
    }
    found = Checkpoint(checkpoint(tmp_path / "model.safetensors", shapes), "photo")
    assert list(found.part("transformer")) == [DOUBLE]
    assert list(found.part("vae")) == ["decoder.conv_in.weight"]
    assert list(found.part("text_encoder")) == ["a"]
    assert not found.part("text_encoder_2")


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"lora_unet_down_blocks.lora_down.weight": SHORT}, "is a LoRA, which changes a model and is none"),
        ({"transformer.blocks.0.lora_A.weight": SHORT}, "is a LoRA"),
        ({"control_model.input_blocks.0.0.weight": SHORT}, "is a ControlNet"),
        (
            unet(1024) | {"cond_stage_model.model.token_embedding.weight": SHORT},
            "is Stable Diffusion 2, which",
        ),
        (
            unet(1280, label=True) | {"conditioner.embedders.0.model.ln_final.weight": SHORT},
            "is the refiner of",
        ),
        (unet(2048, label=True) | {"edm_mean": (4,)}, "is Playground v2.5"),
        ({DOUBLE: SHORT, "distilled_guidance_layer.in_proj.bias": SHORT}, "is Chroma"),
        ({DOUBLE: SHORT, "double_stream_modulation_img.lin.weight": SHORT}, "is FLUX.2"),
        (
            {"down_blocks.0.resnets.0.conv1.weight": SHORT},
            "is a denoiser in Diffusers' layout alone, not a model",
        ),
        ({"decoder.conv_in.weight": SHORT}, "is a VAE alone"),
        ({"text_model.embeddings.token_embedding.weight": SHORT}, "is a text encoder alone"),
        ({"blocks.0.attn.weight": SHORT}, "has an unknown layout; the known ones are Stable Diffusion 1.5,"),
        ({}, "has an unknown layout"),
        (
            {UNET + JOINT: SHORT, UNET + DOUBLE: SHORT},
            "may be Stable Diffusion 3 and FLUX.1, it has tensors of both",
        ),
        (
            unet(40) | dict.fromkeys(TEXT.values(), SHORT),
            "may be Stable Diffusion 1.5 and Stable Diffusion XL",
        ),
        (unet(1024), "text of width 1024 and holds no text encoder, so its family is ambiguous"),
        ({UNET + CONV: (320, 4, 3, 3)}, "its family is ambiguous"),
        ({UNET + CONV: (320, 4, 3, 3), UNET + ATTENTION: ()}, "its family is ambiguous"),
    ],
)
def test_what_is_no_model_of_ours_is_said(tmp_path: Path, shapes: Shapes, says: str) -> None:
    assert says in refusal(checkpoint(tmp_path / "model.safetensors", shapes))


@pytest.mark.parametrize(
    ("more", "dtype", "says"),
    [
        ({"scaled_fp8": (2,)}, "F8_E4M3", "is quantised in its transformer (scaled_fp8, F8_E4M3)"),
        ({"img_in.weight.absmax": (2,)}, "F32", "is quantised"),
        ({"img_in.scale_weight": (2,)}, "F32", "is quantised"),
        ({"img_in.weight": (2, 2)}, "U8", "(img_in.weight, U8)"),
    ],
)
def test_quantised_weights_are_refused(tmp_path: Path, more: Shapes, dtype: str, says: str) -> None:
    assert says in refusal(checkpoint(tmp_path / "model.safetensors", {DOUBLE: SHORT, **more}, dtype))


def test_plain_float8_is_read(tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "model.safetensors", {DOUBLE: SHORT, "img_in.weight": (2, 2)}, "F8_E4M3")
    assert Checkpoint(file, "photo").family == "flux"


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin", ".pth"])
def test_a_pickle_is_refused_by_its_name(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"model{suffix}"
    file.write_bytes(b"never opened")
    assert "is a pickle, which can run code when it is read; convert it to safetensors" in refusal(file)


def test_other_files_are_refused_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "does not end with .safetensors" in refusal(tmp_path / "model.gguf")


def test_flaws_of_the_file_come_with_their_cure(tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "model.safetensors", unet(768))
    shutil.copy(file, tmp_path / "short.safetensors")
    with (tmp_path / "short.safetensors").open("r+b") as stream:
        stream.truncate(file.stat().st_size - 7)
    said = refusal(tmp_path / "short.safetensors")
    assert (
        said == "photo: the checkpoint 'short.safetensors' is cut short: 7 bytes are missing; copy it again."
    )


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory); correct `source`" in refusal(
        tmp_path / "no.safetensors"
    )
