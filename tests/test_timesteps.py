"""Steps of every scheduler without waiting for the device: seen by tensors that tell who asks for numbers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, FlowMatchEulerDiscreteScheduler

from backends import _tasks
from backends._timesteps import keep_on_cpu
from tests.diffusers_doubles import Lanes, generate, loaded
from tests.miniatures import Family, miniature
from tests.test_compiled import pixels

WAITING = {"item", "__bool__", "__float__", "__int__", "__index__", "nonzero", "tolist", "numpy", "cpu"}
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


class Waited(AssertionError):
    """The CPU asked for a number of the device."""


class Far(torch.Tensor):
    """A tensor as if it were on a GPU: its numbers are there, and asking for one is noticed."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        far = isinstance(args[0], Far) if args else False
        if (far and name in WAITING) or (name == "__getitem__" and not far):
            raise Waited(name)
        return super().__torch_function__(func, types, args, kwargs or {})


def far(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).as_subclass(Far)


def steps(scheduler: Any, *, far_times: bool = False, **timesteps: Any) -> torch.Tensor:
    """Four steps, as a pipeline makes them."""
    scheduler.set_timesteps(4, device="cpu", **timesteps)
    latents = far(1, 4, 8, 8)
    for t in scheduler.timesteps:
        t = t.as_subclass(Far) if far_times else t
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(latents, t)
        latents = scheduler.step(far(1, 4, 8, 8), t, latents, return_dict=False)[0]
    assert isinstance(latents, Far)
    return latents


def every_scheduler() -> list[Any]:
    own = DDIMScheduler(**NOISE)
    made = [kind.from_config(own.config) for kind in _tasks.schedulers(own).values()]
    return [*made, FlowMatchEulerDiscreteScheduler(shift=3.0)]


@pytest.mark.parametrize("scheduler", every_scheduler(), ids=lambda each: type(each).__name__)
def test_no_step_waits_where_timesteps_are_on_the_cpu(scheduler: Any) -> None:
    steps(keep_on_cpu(copy.deepcopy(scheduler)))


def test_a_step_waits_where_they_are_on_the_device() -> None:
    with pytest.raises(Waited):
        steps(DDIMScheduler(**NOISE), far_times=True)


def test_the_device_that_a_pipeline_names_is_passed_over() -> None:
    scheduler = keep_on_cpu(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True))
    scheduler.set_timesteps(sigmas=[1.0, 0.5], device="meta", mu=0.7)
    assert {scheduler.timesteps.device.type, scheduler.sigmas.device.type} == {"cpu"}
    scheduler.set_timesteps(3, "meta", mu=0.7)
    assert len(scheduler.timesteps) == 3


def test_a_copy_counts_for_itself() -> None:
    """The stages of a refiner are counted with copies, before the schedulers are used."""
    scheduler = keep_on_cpu(DDIMScheduler(**NOISE))
    scheduler.set_timesteps(4)
    other = copy.deepcopy(scheduler)
    other.set_timesteps(9, device="meta")
    assert (len(scheduler.timesteps), len(other.timesteps)) == (4, 9)
    assert type(other).__name__ == "DDIMScheduler"
    assert type(other).from_config(other.config).config == scheduler.config


@pytest.mark.parametrize("family", ["sd15", "flux"])
async def test_pictures_are_the_same(family: Family, miniatures: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, miniature(family, miniatures))
    plain = pixels(await generate(backend))
    backend.never_waits = True
    assert torch.equal(pixels(await generate(backend)), plain)


def test_pipelines_still_see_its_signature(miniatures: Path) -> None:
    """FLUX hands over its own sigmas where the scheduler takes them."""
    pipeline: Any = DiffusionPipeline.from_pretrained(miniature("flux", miniatures))
    keep_on_cpu(pipeline.scheduler)
    made = pipeline("a", height=64, width=64, num_inference_steps=1, output_type="latent")
    assert made.images.shape[0] == 1
