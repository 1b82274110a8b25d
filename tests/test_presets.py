"""Presets and adjusted schedulers: what they fill in, what goes before them, and where they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router.capabilities import Capabilities
from router.config import InstanceConfig, Limits, ModelConfig, RouterConfig
from router.errors import InvalidRequestError
from router.preset import BUILT_IN, RequestPreset
from router.presets import preset_of_job_type, with_preset
from router.request import GenerateRequest
from router.router import BackendRouter
from router.settings import load_config
from router.types import GenerateResult
from tests.command_line import as_object, configure, triptych
from tests.diffusers_doubles import Lanes, make
from tests.services import serving

SCHEDULERS = ["DDIM", "EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep", "LCM"]
TOML = """
[presets.sketch]
scheduler = "euler trailing"
num_inference_steps = 2

[presets.lcm]
num_inference_steps = 6

[[models.demo.instances]]
backend = "fake"
options = { schedulers = ["DDIM", "EulerDiscrete", "LCM"] }
"""


def config(**options: Any) -> RouterConfig:
    options = {"schedulers": SCHEDULERS} | options
    instance = InstanceConfig(name="demo/fake", backend="fake", options=options)
    return RouterConfig(models=(ModelConfig(name="demo", instances=(instance,)),), default_model="demo")


async def served(given: RouterConfig, **fields: Any) -> GenerateResult:
    async with BackendRouter(given) as router:
        return await router.generate(prompt="a circle", **fields)


@pytest.mark.parametrize("name", BUILT_IN)
async def test_a_preset_fills_what_the_request_leaves_out(name: str) -> None:
    made = (await served(config(), preset=name)).request
    preset = BUILT_IN[name]
    assert (made.preset, made.scheduler, made.num_inference_steps) == (
        name,
        preset.scheduler,
        preset.num_inference_steps,
    )
    assert made.guidance_scale == (5.0 if preset.guidance_scale is None else preset.guidance_scale)


async def test_what_the_request_says_goes_before_its_preset() -> None:
    made = (await served(config(), preset="lcm", num_inference_steps=8, scheduler="euler")).request
    assert (made.scheduler, made.num_inference_steps, made.guidance_scale) == ("euler", 8, 1.0)


async def test_what_does_not_go_with_a_preset_is_refused() -> None:
    with pytest.raises(Exception, match="`negative_prompt` has no effect unless `guidance_scale` is above 1"):
        await served(config(), preset="turbo", negative_prompt="blue")
    with pytest.raises(Exception, match="it has no scheduler 'lcm'; it has DDIM"):
        await served(config(schedulers=["DDIM"]), preset="lcm")
    few = config().model_copy(update={"limits": Limits(max_steps=10)})
    with pytest.raises(InvalidRequestError, match="`num_inference_steps` may be at most 10, not 40"):
        await served(few, preset="high")


async def test_an_unknown_preset_lists_those_that_are() -> None:
    with pytest.raises(
        InvalidRequestError, match="no `preset` 'quick'; there are lcm, turbo, lightning, fast, high"
    ):
        await served(config(), preset="quick")


def test_a_model_without_guidance_gets_none_from_a_preset() -> None:
    asked = GenerateRequest.of(prompt="a circle", preset="lightning")
    assert with_preset(asked, BUILT_IN, {"height": 64}).guidance_scale is None
    assert with_preset(asked, BUILT_IN, {"guidance_scale": 3.5}).guidance_scale == 0


def test_a_preset_may_name_loras_for_who_names_none() -> None:
    presets = {"ink": RequestPreset(scheduler="lcm", loras={"lcm-lora": 0.5})}
    asked = GenerateRequest.of(prompt="a circle", preset="ink")
    (lora,) = with_preset(asked, presets, {}).loras
    assert (lora.name, lora.weight) == ("lcm-lora", 0.5)
    own = GenerateRequest.of(prompt="a circle", preset="ink", loras=[{"name": "oil"}])
    assert [each.name for each in with_preset(own, presets, {}).loras] == ["oil"]


async def test_a_preset_whose_lora_is_not_there_is_refused() -> None:
    presets = {"ink": RequestPreset(loras={"lcm-lora": 0.5})}
    with pytest.raises(Exception, match="it has no LoRA 'lcm-lora'"):
        await served(config().model_copy(update={"presets": presets}), preset="ink")


def test_the_job_types_of_an_earlier_system_are_presets() -> None:
    assert [preset_of_job_type(f"sdxl_image_{kind}") for kind in ("fast", "high")] == ["fast", "high"]
    with pytest.raises(
        InvalidRequestError, match="`job_type` is 'video', but must be one of sdxl_image_fast"
    ):
        preset_of_job_type("video")


async def test_the_built_in_presets_are_for_schedulers_that_a_model_has(
    model_folder: Path, lanes: Lanes
) -> None:
    found: Capabilities = await make(lanes, model_folder).probe()
    for name, preset in BUILT_IN.items():
        asked = GenerateRequest.of(prompt="a circle", height=64, width=64, seed=0, **preset.fills)
        assert found.why_not(asked) is None, name


def test_presets_of_the_file_stand_beside_the_built_in_ones_and_before_them(folder: Path) -> None:
    configure(folder, TOML)
    found = load_config(folder / "triptych.toml", {}, folder).presets
    assert list(found) == [*BUILT_IN, "sketch"]
    assert found["lcm"] == RequestPreset(num_inference_steps=6)


def test_the_command_line_takes_presets_and_schedulers(folder: Path) -> None:
    configure(folder, TOML)
    (made,) = as_object(triptych("generate", "a circle", "--preset", "sketch", "--json"))["pictures"]
    assert made["parameters"]["num_inference_steps"] == 2
    assert made["parameters"]["scheduler"] == "euler trailing"
    (made,) = as_object(triptych("generate", "a circle", "--scheduler", "lcm", "--json"))["pictures"]
    assert made["parameters"]["scheduler"] == "lcm"
    allowed = triptych("generate", "a circle", "--scheduler", "unipc", "--allow", "scheduler", "--json")
    (made,) = as_object(allowed)["pictures"]
    assert made["adjustments"] == [
        "The scheduler was changed from 'unipc', which this model has not, to DDIM."
    ]
    refused = triptych("generate", "a circle", "--preset", "none")
    assert refused.exit_code != 0
    assert "There is no `--preset` 'none'" in refused.stderr


def test_the_service_takes_presets_and_lists_them(tmp_path: Path) -> None:
    with serving(tmp_path, config(schedulers=["DDIM", "EulerDiscrete", "LCM"])) as service:
        meta = service.post("/image/generate", prompt="a circle", preset="lcm").json()["meta"]
        assert (meta["parameters"]["scheduler"], meta["parameters"]["num_inference_steps"]) == ("lcm", 4)
        made = service.post("/v1/images/generations", prompt="a circle", preset="lightning")
        assert made.status_code == 200
        refused = service.post("/image/generate", prompt="a circle", scheduler="lcm", preset="none")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "preset")
        (model,) = service.http.get("/api/v1/capabilities").json()["models"]
    presets = {each["name"]: each for each in model["presets"]}
    assert presets["lcm"]["fields"] == {"scheduler": "lcm", "num_inference_steps": 4, "guidance_scale": 1.0}
    assert presets["lcm"]["why_not"] == ""
    assert presets["high"]["why_not"].startswith("it has no scheduler 'dpm++ 2m karras'")
    assert model["instances"][0]["scheduler_names"] == ["ddim", "euler", "euler karras", "lcm"]


async def test_with_leave_the_models_own_scheduler_takes_the_place_of_one_it_has_not() -> None:
    asked = {"scheduler": "unipc", "height": 65, "allow_adjustments": {"scheduler", "size"}}
    made = await served(config(), **asked)
    assert made.request.scheduler == "DDIM"
    assert made.adjustments[0] == (
        "The scheduler was changed from 'unipc', which this model has not, to DDIM."
    )
    assert len(made.adjustments) == 2
    with pytest.raises(Exception, match="it has no scheduler 'unipc'"):
        await served(config(), scheduler="unipc")
    assert not (await served(config(), scheduler="lcm", allow_adjustments={"scheduler"})).adjustments
