"""What the Diffusers backend refuses, with one sentence that names the cure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from backends import _device
from backends.diffusers import DiffusersBackend
from router.errors import (
    ConfigError,
    InvalidRequestError,
    LoadError,
)
from tests.diffusers_doubles import Lanes, generate, loaded, make, request
from tests.miniatures import miniature


async def refusal(backend: DiffusersBackend) -> str:
    with pytest.raises(LoadError) as caught:
        await backend.probe()
    return str(caught.value)


async def test_a_folder_that_is_not_there(tmp_path: Path, lanes: Lanes) -> None:
    said = await refusal(make(lanes, tmp_path / "nothing"))
    assert said == "miniature: there is no model folder 'nothing'; correct `source`."


async def test_a_hub_id_that_cannot_be_fetched(lanes: Lanes) -> None:
    said = await refusal(make(lanes, "nobody/nothing"))
    assert "the hub gave no model 'nobody/nothing'" in said
    assert "name a local folder" in said


async def test_a_folder_without_index(tmp_path: Path, lanes: Lanes) -> None:
    assert "lacks model_index.json" in await refusal(make(lanes, tmp_path))


async def test_a_half_copied_folder(model_folder: Path, lanes: Lanes) -> None:
    shutil.rmtree(model_folder / "vae")
    assert "lacks the folder 'vae'" in await refusal(make(lanes, model_folder))


async def test_an_empty_component_folder(model_folder: Path, lanes: Lanes) -> None:
    for file in (model_folder / "tokenizer").iterdir():
        file.unlink()
    assert "has nothing in the folder 'tokenizer'" in await refusal(make(lanes, model_folder))


@pytest.mark.parametrize(
    ("text", "says"), [(None, "lacks text_encoder/config.json"), ("{}", "empty text_encoder/config.json")]
)
async def test_a_component_without_configuration(
    model_folder: Path, lanes: Lanes, text: str | None, says: str
) -> None:
    config = model_folder / "text_encoder" / "config.json"
    config.unlink()
    if text is not None:
        config.write_text(text)
    assert says in await refusal(make(lanes, model_folder))


async def test_an_instance_without_source(lanes: Lanes) -> None:
    with pytest.raises(ConfigError, match="`source` is missing; name a model folder"):
        await make(lanes, "").probe()


async def test_a_component_without_weights(model_folder: Path, lanes: Lanes) -> None:
    next((model_folder / "unet").glob("*.safetensors")).unlink()
    assert "has no safetensors file in 'unet'; copy it again" in await refusal(make(lanes, model_folder))


async def test_pickled_weights(model_folder: Path, lanes: Lanes) -> None:
    weights = next((model_folder / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    said = await refusal(make(lanes, model_folder))
    assert "pickled weights in 'unet', which can run code" in said
    assert "convert them to safetensors" in said


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
async def test_a_file_cut_short(model_folder: Path, lanes: Lanes, keep: int) -> None:
    weights = next((model_folder / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:keep])
    assert "copy it again" in await refusal(make(lanes, model_folder))


async def test_a_header_that_claims_gigabytes(model_folder: Path, lanes: Lanes) -> None:
    weights = next((model_folder / "unet").glob("*.safetensors"))
    weights.write_bytes((2**40).to_bytes(8, "little") + weights.read_bytes()[8:])
    assert "that is damaged" in await refusal(make(lanes, model_folder))


async def test_a_shard_that_its_index_names_and_the_folder_lacks(model_folder: Path, lanes: Lanes) -> None:
    index = {"weight_map": {"conv_in.weight": "diffusion_pytorch_model-00002-of-00002.safetensors"}}
    (model_folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert "-00002-of-00002.safetensors' in 'unet'" in await refusal(make(lanes, model_folder))


async def test_an_unknown_pipeline_class(model_folder: Path, lanes: Lanes) -> None:
    index = json.loads((model_folder / "model_index.json").read_text())
    (model_folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "HomeMadePipeline"}))
    assert "pipeline class 'HomeMadePipeline'" in await refusal(make(lanes, model_folder))


@pytest.mark.parametrize("header", [b"[]", b'{"a": 1}', b'{"a": {"shape": [1]}}', b"[" * 100_000])
async def test_a_header_that_is_not_one(model_folder: Path, lanes: Lanes, header: bytes) -> None:
    weights = next((model_folder / "unet").glob("*.safetensors"))
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    assert "that is damaged" in await refusal(make(lanes, model_folder))


@pytest.mark.parametrize("name", ["HomeMadeScheduler", None])
async def test_an_unknown_scheduler_class(model_folder: Path, lanes: Lanes, name: str | None) -> None:
    file = model_folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "_class_name": name}))
    assert f"scheduler class {name!r}" in await refusal(make(lanes, model_folder))


async def test_weights_that_do_not_fit_their_configuration(model_folder: Path, lanes: Lanes) -> None:
    config = json.loads((model_folder / "vae" / "config.json").read_text())
    (model_folder / "vae" / "config.json").write_text(json.dumps({**config, "latent_channels": 9}))
    backend = make(lanes, model_folder)
    await backend.probe()
    with pytest.raises(LoadError, match="could not load its model"):
        await backend.load()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"device": "cuda:7"}, "`device` is 'cuda:7', which this machine has not"),
        ({"device": "toaster"}, "`device` is 'toaster'; use"),
        ({"dtype": "float64"}, "`dtype` is 'float64'; use"),
        ({"dtype": "float16"}, "float16 does not run on a CPU"),
        ({"options": {"offload": "model"}}, "option `offload` is 'model', but `device` is the CPU"),
        ({"options": {"offload": "sometimes"}}, "option `offload` is 'sometimes'"),
        ({"options": {"vae_tilling": True}}, "Did you mean `vae_tiling`?"),
        ({"options": {"compile": True, "offload": "model"}, "device": "auto"}, "do not go together"),
        (
            {"options": {"offload": "model", "device_map": "balanced"}, "device": "auto"},
            "options `offload` ('model') and `device_map` ('balanced') do not go together",
        ),
        ({"options": {"device_map": "auto"}}, "an instance has one device, its lane's; name several"),
    ],
)
async def test_settings_that_this_machine_has_not(
    model_folder: Path, lanes: Lanes, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        await make(lanes, model_folder, **fields).probe()
    assert says in str(caught.value)


async def test_offload_where_no_accelerator_was_found(
    model_folder: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_device, "fastest_device", lambda: "cpu")
    with pytest.raises(ConfigError, match="option `offload` is 'model', but `device` is the CPU"):
        await make(lanes, model_folder, device="auto", options={"offload": "model"}).probe()


async def test_an_attention_back_end_that_is_not_there(miniatures: Path, lanes: Lanes) -> None:
    backend = make(lanes, miniature("flux", miniatures), options={"attention": "flash"})
    await backend.probe()
    with pytest.raises(
        ConfigError, match="option `attention` is 'flash', which this model or machine has not"
    ):
        await backend.load()


async def test_a_prompt_beyond_the_text_window_is_refused_with_its_length(
    model_folder: Path, lanes: Lanes
) -> None:
    backend = await loaded(lanes, model_folder)
    for field in ("prompt", "negative_prompt"):
        with pytest.raises(
            InvalidRequestError, match=rf"`{field}` has \d+ tokens .* the model reads 77"
        ) as caught:
            await generate(backend, **{field: "circle " * 90})
        assert caught.value.param == field


async def test_more_steps_than_a_distilled_schedule_has(model_folder: Path, lanes: Lanes) -> None:
    found = await make(lanes, model_folder).probe()
    assert found.why_not(request(scheduler="LCM", num_inference_steps=50)) is None
    assert found.why_not(request(scheduler="lcm", num_inference_steps=51)) == (
        "`num_inference_steps` is 51, and the scheduler LCM takes 1 to 50; change it or choose another"
        " `scheduler`."
    )
