"""Profiles and settings: which shapes a model can be exported in, and the sentence for those it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from export.components import Component
from export.errors import UnsupportedExportError
from export.families import Family, family_of
from export.plan import plan
from export.profiles import SHIPPED, profiles_of
from export.settings import ExportSettings
from router.errors import LoadError
from router.types import ShapeProfile
from tests.miniatures import miniature


@pytest.fixture
def sd15(miniatures: Path) -> Family:
    return family_of(miniature("sd15", miniatures))


@pytest.fixture
def sd3(miniatures: Path) -> Family:
    return family_of(miniature("sd3", miniatures))


def configure(folder: Path, component: str, **values: Any) -> None:
    file = folder / component / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# --- profiles


def test_a_size_is_written_width_first(sd15: Family) -> None:
    (profile,) = profiles_of(sd15, ["768x512"])
    assert (profile.name, profile.height, profile.width) == ("768x512", 512, 768)


def test_a_size_can_have_a_name(sd15: Family) -> None:
    portrait, landscape = profiles_of(sd15, ["portrait", "landscape"])
    assert portrait.height > portrait.width
    assert (landscape.height, landscape.width) == SHIPPED["stable-diffusion"]["landscape"]


def test_no_size_is_the_models_own(sd15: Family) -> None:
    assert profiles_of(sd15)[0].name == "64x64"


def test_one_size_asked_for_twice_is_one_profile(sd15: Family) -> None:
    assert len(profiles_of(sd15, ["512x512", "square"])) == 1


def test_rows_are_sorted_and_the_familys_by_default(sd15: Family, miniatures: Path) -> None:
    flux = family_of(miniature("flux", miniatures))
    assert profiles_of(sd15)[0].row_buckets == (2, 8)
    assert profiles_of(flux, ["64x64"])[0].row_buckets == (1, 4)
    assert profiles_of(sd15, rows=[8, 2, 8, 4])[0].row_buckets == (2, 4, 8)


def test_text_lengths_are_the_pipelines_own_and_t5s_can_be_chosen(sd15: Family, sd3: Family) -> None:
    assert profiles_of(sd15)[0].text_lengths == (77,)
    assert profiles_of(sd3)[0].text_lengths == (77, 77, 256)
    assert profiles_of(sd3, text_length=128)[0].text_lengths == (77, 77, 128)


@pytest.mark.parametrize("family", SHIPPED)
def test_the_shipped_sizes_are_multiples_that_all_models_take(family: str) -> None:
    assert all(side % 64 == 0 for size in SHIPPED[family].values() for side in size)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"sizes": ["poster"]},
            "`profile` is 'poster'; for stable-diffusion use square, portrait",
        ),
        ({"sizes": ["512"]}, "or WIDTHxHEIGHT in pixels"),
        ({"sizes": ["512x-8"]}, "`profile` is '512x-8'"),
        (
            {"sizes": ["100x512"]},
            "this model takes multiples of 8: try 96 or 104",
        ),
        ({"sizes": ["512x100"]}, "The height of a `profile` is 100 pixels"),
        ({"sizes": ["8x512"]}, "this model takes 16 to 4096"),
        ({"sizes": ["99999x64"]}, "is 99999 pixels; this model takes 16 to 4096"),
        ({"rows": [2, 0]}, "`rows` holds 0; use numbers from 1 to 32"),
        ({"rows": [64]}, "`rows` holds 64"),
        ({"text_length": 64}, "stable-diffusion has no T5"),
    ],
)
def test_what_a_model_cannot_make_is_one_sentence(asked: dict[str, Any], said: str, sd15: Family) -> None:
    with pytest.raises(UnsupportedExportError) as caught:
        profiles_of(sd15, **asked)
    assert said in str(caught.value)


@pytest.mark.parametrize("length", [0, 513])
def test_t5_reads_so_many_tokens_and_no_more(length: int, sd3: Family) -> None:
    with pytest.raises(UnsupportedExportError, match=f"`text_length` is {length} tokens; use 1 to 512"):
        profiles_of(sd3, text_length=length)


def test_sd3_has_positions_for_a_limited_size(sd3: Family) -> None:
    with pytest.raises(UnsupportedExportError, match="is 400 pixels; this model takes 16 to 384"):
        profiles_of(sd3, ["400x64"])


# --- settings


def settings(dtype: str = "float32", **values: Any) -> ExportSettings:
    profile = ShapeProfile("64x64", 64, 64, dtype, (2,), (77,))
    return ExportSettings(profiles=(profile,), **values)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"opset": 17}, "`opset` is 17; use 18 to 23"),
        ({"opset": 24}, "`opset` is 24"),
        ({"dtype": "int8"}, "`dtype` is 'int8'; use one of float32, float16, bfloat16"),
        ({"dtype": "bfloat16"}, "bfloat16 needs opset 22 or later, not 20"),
        ({"runtimes": ("coreml",)}, "`runtime` is 'coreml'; use one of onnxruntime"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedExportError) as caught:
        settings(**asked)
    assert said in str(caught.value)


# --- families


def test_an_unknown_family_is_refused_with_the_known_ones(model_folder: Path) -> None:
    index = json.loads((model_folder / "model_index.json").read_text())
    (model_folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "SanaPipeline"}))
    with pytest.raises(UnsupportedExportError) as caught:
        family_of(model_folder)
    assert "SanaPipeline" in str(caught.value)
    for known in SHIPPED:
        assert known in str(caught.value)


def test_a_part_of_another_class_is_refused(model_folder: Path) -> None:
    index = json.loads((model_folder / "model_index.json").read_text())
    index["vae"] = ["diffusers", "AutoencoderTiny"]
    (model_folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedExportError, match="has AutoencoderTiny as vae, which has no export"):
        family_of(model_folder)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"lacks model_index\.json"):
        family_of(tmp_path)


def test_the_sdxl_vae_stays_out_of_float16_alone(miniatures: Path) -> None:
    components = family_of(miniature("sdxl", miniatures)).components
    dtypes = {component.name: component.dtype("float16") for component in components}
    assert dtypes == {
        "text_encoder": "float16",
        "text_encoder_2": "float16",
        "unet": "float16",
        "vae_decoder": "float32",
        "vae_encoder": "float32",
    }
    assert {component.dtype("bfloat16") for component in components} == {"bfloat16"}


def unet_inputs(folder: Path) -> dict[str, tuple[int, ...]]:
    unet = next(each for each in family_of(folder).components if each.name == "unet")
    return {each.name: each.shape(settings().profiles[0], 2) for each in unet.inputs}


def test_an_inpainting_unet_takes_nine_channels(model_folder: Path) -> None:
    configure(model_folder, "unet", in_channels=9)
    assert unet_inputs(model_folder)["sample"] == (2, 9, 8, 8)


def test_a_unet_distilled_with_guidance_takes_its_embedding(model_folder: Path) -> None:
    configure(model_folder, "unet", time_cond_proj_dim=16)
    assert unet_inputs(model_folder)["timestep_cond"] == (2, 16)


def test_flux_without_guidance_takes_none(miniatures: Path) -> None:
    schnell = family_of(miniature("flux", miniatures, guidance_embeds=False))
    transformer = next(each for each in schnell.components if each.name == "transformer")
    assert "guidance" not in transformer.input_names


def test_sd3_without_its_t5_keeps_the_room_for_it(miniatures: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(miniature("sd3", miniatures), tmp_path / "sd3"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"text_encoder_3": [None, None]}))
    family = family_of(folder)
    assert "text_encoder_3" not in {component.name for component in family.components}
    transformer = next(each for each in family.components if each.name == "transformer")
    shapes = {each.name: each.shape(profiles_of(family)[0], 2) for each in transformer.inputs}
    assert shapes["encoder_hidden_states"] == (2, 77 + 256, 64)


# --- plan


def files(component: Component, graphs: dict[str, Any]) -> list[tuple[str, int, str]]:
    return [(each.profile.name, each.rows, each.file) for each in graphs[component.name]]


def test_the_first_graph_is_where_optimum_looks_and_equal_shapes_share_a_file(sd15: Family) -> None:
    graphs = plan(sd15, ExportSettings(profiles=profiles_of(sd15, ["64x64", "128x64"])))
    by_name = {component.name: files(component, graphs) for component in sd15.components}
    assert by_name["unet"] == [
        ("64x64", 2, "unet/model.onnx"),
        ("64x64", 8, "unet/64x64-r8.onnx"),
        ("128x64", 2, "unet/128x64-r2.onnx"),
        ("128x64", 8, "unet/128x64-r8.onnx"),
    ]
    assert by_name["text_encoder"] == [
        ("64x64", 1, "text_encoder/model.onnx"),
        ("128x64", 1, "text_encoder/model.onnx"),
    ]
    assert by_name["vae_decoder"][1] == ("128x64", 1, "vae_decoder/128x64.onnx")


def test_an_open_batch_axis_needs_one_graph_of_each_profile(sd15: Family) -> None:
    profiles = profiles_of(sd15, ["64x64", "128x64"])
    graphs = plan(sd15, ExportSettings(profiles=profiles, dynamic_batch=True))
    unet = next(component for component in sd15.components if component.name == "unet")
    assert files(unet, graphs) == [("64x64", 2, "unet/model.onnx"), ("128x64", 2, "unet/128x64.onnx")]
