"""A checkpoint and its configurations: what is known before loading, and what does not fit together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from router.errors import ConfigError, LoadError, RouterError
from router.single_file import SingleFile, open_model
from tests.diffusers_doubles import Lanes, generate, loaded, make
from tests.miniatures import FAMILIES, Family
from tests.single_files import narrow_flux, single_file, source

__all__ = ["narrow_flux"]

FileOf = Callable[..., Path]

NOTES = {
    "sd15": "Stable Diffusion 1.5",
    "sdxl": "Stable Diffusion XL",
    "sd3": "Stable Diffusion 3",
    "flux": "FLUX.1",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("single-files")


@pytest.fixture
def file_of(root: Path, tmp_path: Path) -> FileOf:
    """The checkpoint of a family, with its configurations, that a test may damage."""

    def copied(family: Family, *only: str) -> Path:
        made = single_file(family, root, only=only)
        return Path(shutil.copytree(made.parent, tmp_path / made.parent.name)) / made.name

    return copied


def change(file: Path, **keys: Any) -> None:
    """Keys of a configuration; `None` takes one out."""
    config = json.loads(file.read_text()) | keys
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


async def refusal(lanes: Lanes, file: Path, kind: type[RouterError] = LoadError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        await make(lanes, file, options=options).probe()
    return str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
async def test_capabilities_are_those_of_the_folder(
    family: Family, root: Path, file_of: FileOf, lanes: Lanes
) -> None:
    found = await make(lanes, file_of(family)).probe()
    wanted = await make(lanes, source(family, root)).probe()
    assert (found.family, found.pipeline, found.tasks) == (wanted.family, wanted.pipeline, wanted.tasks)
    assert (found.defaults, found.size_multiple, found.min_side) == (
        wanted.defaults, wanted.size_multiple, wanted.min_side,
    )  # fmt: skip
    assert found.schedulers == wanted.schedulers
    missing = 32 * 32 * 4 if family == "sd3" else 0
    assert found.footprint.weights_bytes - wanted.footprint.weights_bytes in (0, missing)
    assert f"{NOTES[family]} from one file" in found.notes


async def test_the_configuration_may_lie_elsewhere(file_of: FileOf, lanes: Lanes, tmp_path: Path) -> None:
    file = file_of("sd15")
    file.with_suffix("").rename(tmp_path / "elsewhere")
    said = await refusal(lanes, file)
    assert "has no folder 'tiny' with configurations and tokenizers beside it" in said
    assert "put those of Stable Diffusion 1.5 there, or name option `config`" in said
    assert await make(lanes, file, options={"config": str(tmp_path / "elsewhere")}).probe()
    assert "no folder 'nowhere' with" in await refusal(lanes, file, config=str(tmp_path / "nowhere"))


async def test_a_configuration_for_a_folder_is_a_mistake(root: Path, lanes: Lanes) -> None:
    said = await refusal(lanes, source("sd15", root), ConfigError, config="somewhere")
    assert "option `config` is for single files; drop it" in said


async def test_a_checkpoint_that_is_not_there(lanes: Lanes) -> None:
    for path in ("models/photo.safetensors", "photo.ckpt"):
        assert f"there is no checkpoint {Path(path).name!r}; correct `source`" in await refusal(
            lanes, Path(path)
        )


async def test_a_configuration_of_another_family(file_of: FileOf, lanes: Lanes) -> None:
    other = str(file_of("sdxl").with_suffix(""))
    said = await refusal(lanes, file_of("sd15"), config=other)
    assert "is of a StableDiffusionXLPipeline, and the checkpoint is Stable Diffusion 1.5" in said
    assert "name a configuration of StableDiffusionPipeline or StableDiffusionInpaintPipeline" in said


@pytest.mark.parametrize(
    ("family", "component", "key", "value", "held"),
    [
        ("sd15", "unet", "in_channels", 9, 4),
        ("sd15", "unet", "cross_attention_dim", 768, 32),
        ("sd15", "vae", "latent_channels", 16, 4),
        ("sd15", "text_encoder", "num_hidden_layers", 12, 2),
        ("sdxl", "unet", "projection_class_embeddings_input_dim", 2816, 72),
        ("sdxl", "text_encoder_2", "hidden_size", 1280, 24),
        ("sd3", "transformer", "num_layers", 24, 2),
        ("sd3", "text_encoder_3", "d_model", 4096, 64),
        ("flux", "transformer", "num_single_layers", 38, 1),
        ("flux", "transformer", "guidance_embeds", False, True),
        ("flux", "text_encoder", "vocab_size", 49408, 675),
    ],
)
async def test_a_configuration_of_another_model(
    file_of: FileOf, lanes: Lanes, family: Family, component: str, key: str, value: Any, held: Any
) -> None:
    file = file_of(family)
    change(file.with_suffix("") / component / "config.json", **{key: value})
    said = await refusal(lanes, file)
    assert f"`{key}` in {component}/config.json is {value}, and the checkpoint has {held}" in said
    assert "name the configuration of this model" in said


async def test_a_component_that_neither_file_nor_folder_has(file_of: FileOf, lanes: Lanes) -> None:
    file = file_of("sd3", "transformer", "vae", "text_encoder", "text_encoder_2")
    next((file.with_suffix("") / "text_encoder_3").glob("*.safetensors")).unlink()
    said = await refusal(lanes, file)
    assert "has no safetensors file in 'text_encoder_3', which the checkpoint lacks; put one there" in said


async def test_optional_components_that_nobody_has_are_noted(file_of: FileOf, lanes: Lanes) -> None:
    file = file_of("sd15")
    change(
        file.with_suffix("") / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
    )
    backend = await loaded(lanes, file)
    notes = (await backend.probe()).notes
    assert "without safety_checker, which nobody has" in notes
    assert "without feature_extractor, which nobody has" in notes


async def test_a_scheduler_of_another_prediction(file_of: FileOf, lanes: Lanes) -> None:
    file = file_of("sdxl")
    save_file(load_file(file) | {"v_pred": torch.zeros(0)}, file)
    said = await refusal(lanes, file)
    assert "has a scheduler for `prediction_type` 'epsilon', and the checkpoint was trained for" in said
    change(file.with_suffix("") / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    assert await make(lanes, file).probe()


@pytest.mark.usefixtures("narrow_flux")
@pytest.mark.parametrize(
    ("family", "old", "new", "says"),
    [
        ("sd15", "model.diffusion_model.out.2.bias", None, "lacks 'conv_out.bias' of 'unet'"),
        (
            "sd15",
            "first_stage_model.decoder.mid.attn_1.q.bias",
            None,
            "lacks 'decoder.mid_block.attentions.0.to_q.b",
        ),
        (
            "sd15",
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
            None,
            "final_layer_norm.bias' of",
        ),
        (
            "sdxl",
            "model.diffusion_model.time_embed.0.bias",
            "model.diffusion_model.time_more.0.bias",
            "lacks",
        ),
        ("sd3", "model.diffusion_model.final_layer.linear.bias", None, "has a 'transformer' that Diffusers"),
        ("flux", "model.diffusion_model.img_in.bias", None, "has a 'transformer' that Diffusers"),
    ],
)
async def test_a_checkpoint_with_a_tensor_missing_is_not_loaded(
    file_of: FileOf, lanes: Lanes, family: Family, old: str, new: str | None, says: str
) -> None:
    file = file_of(family)
    state = load_file(file)
    value = state.pop(old)
    save_file(state | ({new: value} if new else {}), file)
    with pytest.raises(
        LoadError, match="name a configuration of this model, or a whole checkpoint"
    ) as caught:
        await loaded(lanes, file)
    assert says in str(caught.value)


async def test_a_checkpoint_with_more_than_its_configuration_makes_is_not_loaded(
    file_of: FileOf, lanes: Lanes
) -> None:
    file = file_of("sd15")
    save_file(load_file(file) | {"first_stage_model.decoder.attn.extra": torch.zeros(3)}, file)
    with pytest.raises(LoadError, match=r"has more tensors in its 'vae' than vae/config\.json"):
        await loaded(lanes, file)


async def test_the_published_width_of_flux_is_what_diffusers_converts(file_of: FileOf, lanes: Lanes) -> None:
    with pytest.raises(LoadError, match=r"'transformer' that Diffusers .* cannot convert"):
        await loaded(lanes, file_of("flux"))


@pytest.mark.usefixtures("narrow_flux")
@pytest.mark.parametrize("family", FAMILIES)
async def test_every_component_has_the_dtype_that_was_asked_for(
    family: Family, file_of: FileOf, lanes: Lanes
) -> None:
    backend = await loaded(lanes, file_of(family), dtype="bfloat16")
    parts = backend._pipelines["text-to-image"].components.values()
    assert {part.dtype for part in parts if isinstance(part, torch.nn.Module)} == {torch.bfloat16}
    assert (await generate(backend, num_inference_steps=1)).pictures[0].image


def test_the_files_that_are_read_are_the_checkpoint_and_what_it_lacks(root: Path) -> None:
    model = open_model(single_file("flux", root, only=["transformer", "vae"]), "photo")
    assert isinstance(model, SingleFile)
    read = [file.relative_to(model.folder.parent).as_posix() for file in model.weight_files()]
    assert read == [
        "tiny.safetensors", "tiny/text_encoder/model.safetensors", "tiny/text_encoder_2/model.safetensors",
    ]  # fmt: skip
