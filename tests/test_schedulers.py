"""Schedulers by request: what the names mean, which steps they take, and pictures like plain Diffusers'."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.schedulers import SUFFIX, TAKES, find_scheduler, scheduler_names
from tests.diffusers_doubles import Lanes, generate, loaded, make, request
from tests.miniatures import miniature
from tests.plain_pipelines import pixels, plain_pipeline
from tests.services import serving

OFFERED = (
    *("DDIM", "EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep"),
    *("KDPM2AncestralDiscrete", "KDPM2Discrete", "LCM", "UniPCMultistep"),
)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("DDIM", "DDIM", {}),
        ("DDIMScheduler", "DDIM", {}),
        ("ddim", "DDIM", {}),
        ("Euler a", "EulerAncestralDiscrete", {}),
        ("euler_ancestral", "EulerAncestralDiscrete", {}),
        ("k_euler_a", "EulerAncestralDiscrete", {}),
        ("unipc", "UniPCMultistep", {}),
        ("dpm2 karras", "KDPM2Discrete", {"use_karras_sigmas": True}),
        ("lcm", "LCM", {}),
        (
            "dpm++ 2m karras",
            "DPMSolverMultistep",
            {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True},
        ),
        ("DPMPP_2M_SDE", "DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"}),
        ("DPM++ SDE Karras", "DPMSolverSinglestep", {"use_karras_sigmas": True}),
        ("dpm2 a karras", "KDPM2AncestralDiscrete", {"use_karras_sigmas": True}),
        ("Euler SGM Uniform", "EulerDiscrete", {"timestep_spacing": "trailing"}),
        ("ddim trailing", "DDIM", {"timestep_spacing": "trailing"}),
    ],
)
def test_what_a_name_means(name: str, kind: str, settings: dict[str, Any]) -> None:
    found = find_scheduler(name, OFFERED)
    assert found is not None
    assert (found.kind, found.settings) == (kind, settings)


@pytest.mark.parametrize(
    "name", ["", "karras", "lms", "euler a karras", "euler karras exponential", "ddim trailing leading", "k"]
)
def test_a_name_that_means_nothing_here(name: str) -> None:
    assert find_scheduler(name, OFFERED) is None


def test_a_flow_matching_model_has_an_euler_of_its_own() -> None:
    found = find_scheduler("euler", ("FlowMatchEulerDiscrete",))
    assert found is not None
    assert found.kind == "FlowMatchEulerDiscrete"


def test_the_names_of_other_programs_are_listed() -> None:
    names = scheduler_names(("EulerDiscrete", "LCM"))
    assert names == ["euler", "euler karras", "lcm"]


@pytest.mark.parametrize("setting", TAKES)
def test_every_class_has_the_settings_that_the_table_says(setting: str, model_folder: Path) -> None:
    own = diffusers.DDIMScheduler.from_pretrained(model_folder / "scheduler")
    for kind in own.compatibles:
        if kind is not diffusers.EDMEulerScheduler and not hasattr(kind, "_backends"):  # a library is missing
            has = setting in inspect.signature(kind.__init__).parameters
            assert has == (kind.__name__.removesuffix(SUFFIX) in TAKES[setting]), kind


async def test_steps_that_a_scheduler_cannot_do_are_refused_before_the_model_is_loaded(
    model_folder: Path, lanes: Lanes
) -> None:
    found = await make(lanes, model_folder).probe()
    said = {
        ("lcm", 51): "`num_inference_steps` is 51, and the scheduler LCM takes 1 to 50",
        ("pndm", 3): "`num_inference_steps` is 3, and the scheduler PNDM takes 4 to 1000",
        ("ddim", 1001): "`num_inference_steps` is 1001, and the scheduler DDIM takes 1 to 1000",
        (None, 1001): "`num_inference_steps` is 1001, and the scheduler DDIM takes 1 to 1000",
    }
    for (scheduler, steps), sentence in said.items():
        assert (found.why_not(request(scheduler=scheduler, num_inference_steps=steps)) or "").startswith(
            sentence
        )
    for scheduler, steps in (("lcm", 50), ("pndm", 4), ("euler", 1), ("ddim", 1000)):
        assert found.why_not(request(scheduler=scheduler, num_inference_steps=steps)) is None


async def test_the_ranges_are_what_every_scheduler_really_takes(model_folder: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, model_folder)
    ranges = (await backend.probe()).scheduler_steps
    assert {name: least for name, (least, _) in ranges.items() if least > 1} == {"PNDM": 4}
    for scheduler, (least, _) in ranges.items():
        made = await generate(backend, scheduler=scheduler, num_inference_steps=least)
        assert made.pictures[0].image is not None, scheduler


def test_over_http_such_steps_are_a_fault_of_the_request(miniatures: Path, tmp_path: Path) -> None:
    source = str(miniature("sd15", miniatures))
    instance = InstanceConfig(name="demo", backend="diffusers", source=source, device="cpu")
    models = (ModelConfig(name="demo", instances=(instance,)),)
    with serving(tmp_path, RouterConfig(models=models, default_model="demo")) as service:
        asked = {"prompt": "a circle", "scheduler": "lcm", "num_inference_steps": 51}
        refused = service.post("/image/generate", **asked)
        unknown = service.post("/image/generate", **asked | {"scheduler": "quick"})
    assert (refused.status_code, unknown.status_code) == (400, 400)
    assert "the scheduler LCM takes 1 to 50" in refused.text
    assert "it has no scheduler 'quick'; it has DDIM, DDPM, " in unknown.text


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("dpm++ 2m karras", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
        ("euler a", "EulerAncestralDiscreteScheduler", {}),
        ("ddim trailing", "DDIMScheduler", {"timestep_spacing": "trailing"}),
        ("lcm", "LCMScheduler", {}),
    ],
)
async def test_pictures_equal_plain_diffusers_with_that_scheduler(
    name: str, kind: str, settings: dict[str, Any], miniatures: Path, lanes: Lanes
) -> None:
    folder = miniature("sd15", miniatures)
    made = await generate(await loaded(lanes, folder), scheduler=name, reproducible=True)
    plain = plain_pipeline(folder, "text-to-image")
    own = plain.scheduler
    try:
        plain.scheduler = getattr(diffusers, kind).from_config(own.config, **settings)
        asked = request()
        picture = plain(
            prompt=asked.prompt,
            height=64,
            width=64,
            num_inference_steps=asked.num_inference_steps,
            guidance_scale=asked.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(1),
        ).images[0]
    finally:
        plain.scheduler = own
    assert np.array_equal(pixels(made.pictures[0].image), np.asarray(picture))
