"""Another VAE than the model's: pictures are those of plain Diffusers, a wrong one is refused unread."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from router.errors import LoadError
from tests.command_line import as_object, configure, triptych
from tests.diffusers_doubles import Lanes, generate, loaded, make, request
from tests.miniatures import BUILDERS, draw_weights, miniature
from tests.original_layouts import published
from tests.plain_pipelines import pixels, plain_pipeline
from tests.single_files import single_file

EARLIER = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def another(folder: Path, **changes: Any) -> Path:
    """The folder of a VAE like the miniature's, with weights of its own."""
    own = BUILDERS["sd15"]()["vae"][1]
    config = {key: value for key, value in own.config.items() if key != "_use_default_values"}
    vae = AutoencoderKL.from_config({**config, **changes})
    draw_weights({"other": ("diffusers", torch.nn.Linear(3, 3)), "vae": ("diffusers", vae)})
    vae.save_pretrained(folder)
    return folder


def as_file(folder: Path, layout: str) -> Path:
    """The same as one file without its configuration."""
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    target = folder.parent / f"{layout}.safetensors"
    if layout == "original":
        _, weights = published("sd15", "vae", weights)
    elif layout == "prefixed":
        prefix, renamed = published("sd15", "vae", weights)
        weights = {prefix + name: value for name, value in renamed.items()}
    elif layout == "earlier":
        for today, before in EARLIER.items():
            weights = {
                name.replace(f"attentions.0.{today}.", f"attentions.0.{before}."): value
                for name, value in weights.items()
            }
    save_file(weights, target, metadata={"format": "pt"})
    return target


def plain(folder: Path, vae: Path) -> Any:
    pipeline = plain_pipeline(folder, "text-to-image")
    own = pipeline.vae
    try:
        pipeline.vae = AutoencoderKL.from_pretrained(vae)
        asked = request()
        fields = {name: getattr(asked, name) for name in ("prompt", "height", "width", "guidance_scale")}
        steps = asked.num_inference_steps
        generator = torch.Generator("cpu").manual_seed(1)
        return np.asarray(
            pipeline(**fields, num_inference_steps=steps, generator=generator).images[0]
        ).astype(int)
    finally:
        pipeline.vae = own


@pytest.mark.parametrize("layout", ["folder", "original", "prefixed", "diffusers", "earlier"])
async def test_pictures_are_those_of_the_other_vae(
    layout: str, miniatures: Path, tmp_path: Path, lanes: Lanes
) -> None:
    folder, vae = miniature("sd15", miniatures), another(tmp_path / "other")
    place = vae if layout == "folder" else as_file(vae, layout)
    backend = await loaded(lanes, folder, options={"vae": str(place)})
    made = await generate(backend, reproducible=True)
    assert np.abs(pixels(made.pictures[0].image).astype(int) - plain(folder, vae)).max() <= 1


async def test_a_single_file_takes_another_vae(miniatures: Path, tmp_path: Path, lanes: Lanes) -> None:
    vae = another(tmp_path / "other")
    backend = await loaded(lanes, single_file("sd15", miniatures), options={"vae": str(vae)})
    made = await generate(backend, reproducible=True)
    expected = plain(miniature("sd15", miniatures), vae)
    assert np.abs(pixels(made.pictures[0].image).astype(int) - expected).max() <= 1


async def test_a_model_without_a_vae_of_its_own_is_served_with_another(
    model_folder: Path, tmp_path: Path, lanes: Lanes
) -> None:
    (model_folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    backend = await loaded(lanes, model_folder, options={"vae": str(another(tmp_path / "other"))})
    assert (await generate(backend)).pictures[0].image is not None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"latent_channels": 16}, "'other' has 16 latent channels, and the model 'model' works on 4"),
        (
            {"scaling_factor": 0.13025},
            "has `scaling_factor` 0.13025, and the model 'model' was trained for 0.18215",
        ),
        ({"shift_factor": 0.1}, "has `shift_factor` 0.1, and the model 'model' was trained for 0.0"),
    ],
)
async def test_a_vae_of_another_family_is_refused_before_anything_is_loaded(
    changes: dict[str, Any], sentence: str, model_folder: Path, tmp_path: Path, lanes: Lanes
) -> None:
    vae = another(tmp_path / "other", **changes)
    with pytest.raises(LoadError) as caught:
        await make(lanes, model_folder, options={"vae": str(vae)}).probe()
    assert sentence in str(caught.value)
    assert str(caught.value).endswith("name a VAE of the model's family.")


async def test_a_file_with_other_blocks_is_refused_before_a_weight_is_read(
    model_folder: Path, tmp_path: Path, lanes: Lanes
) -> None:
    vae = as_file(another(tmp_path / "other", block_out_channels=(8, 8, 16, 32)), "original")
    backend = make(lanes, model_folder, options={"vae": str(vae)})
    await backend.probe()
    with pytest.raises(LoadError, match=r"'original.safetensors' has '.*' of another 'vae'; name a VAE"):
        await backend.load()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("absent.safetensors", None, "is not there; correct the path"),
        ("vae.pt", b"PK\x03\x04", "does not end with .safetensors"),
        ("renamed.safetensors", b"\x80\x02" + bytes(100), "is a pickle under another name"),
        ("short.safetensors", b"\x10", "is cut short"),
        (
            "lora.safetensors",
            {"lora_up.weight": torch.zeros(2, 2)},
            "is no VAE; name the file or folder of one",
        ),
    ],
)
async def test_what_is_no_vae_is_refused(
    name: str, content: Any, sentence: str, model_folder: Path, tmp_path: Path, lanes: Lanes
) -> None:
    if isinstance(content, dict):
        save_file(content, tmp_path / name)
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(LoadError) as caught:
        await make(lanes, model_folder, options={"vae": str(tmp_path / name)}).probe()
    assert f"option `vae`: {name!r} {sentence}" in str(caught.value)


def test_the_command_line_tells_which_vae_serves(folder: Path, miniatures: Path) -> None:
    another(folder / "sharper")
    as_file(folder / "sharper", "original")
    instance = (
        f'[[models.photo.instances]]\nbackend = "diffusers"\nsource = "{miniature("sd15", miniatures)}"\n'
    )
    configure(folder, instance + 'options = { vae = "sharper" }\n')
    (model,) = as_object(triptych("models", "--json"))["models"]
    assert "VAE from sharper" in json.dumps(model)
    configure(folder, instance + 'options = { vae = "original.safetensors" }\n')
    (found,) = as_object(triptych("backends", "--json"))["instances"]
    assert "VAE from original.safetensors, which says nothing of its scaling" in json.dumps(found)
